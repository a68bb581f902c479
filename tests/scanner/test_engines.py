"""Scanning by engines that run for real: Dask, Ray, loky, MPI. Each starts its workers here, and one of them ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import ExecutorError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import chunks
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.requirements import require
from tests.support.rooms import REPOSITORY
from tests.support.scanned import Ending, assert_same, number, table_bytes

pytestmark = [
    pytest.mark.timeout(300),  # to start an engine takes half a minute where others work, too
    # What engines leave open is theirs, and so is what they use that is deprecated.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_SMALLEST", 2)
    monkeypatch.setattr(chunks, "_FIRST", 4)


@pytest.fixture(scope="module")
def dask_client() -> Iterator[Any]:
    require("dask")
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[Executor]:
    require("ray")
    import ray

    from dicomtorch.integrations.ray import RayExecutor

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield RayExecutor(max_retries=2)
    finally:
        ray.shutdown()


def same_and_whole(tree: Path, executor: Executor, marker: Path) -> None:
    """The table is that of a serial scan, also when a worker ends in the middle."""
    alone, report = scan(tree, num_workers=0)
    together, other = scan(tree, executor=executor)
    assert table_bytes(alone) == table_bytes(together)
    assert report.findings == other.findings
    ended, _ = scan(tree, executor=Ending(executor, 3, marker))
    assert marker.exists()
    assert table_bytes(alone) == table_bytes(ended)


# Dask


def test_dask_gives_the_same_table(dask_client: Any, tree: Path, tmp_path: Path) -> None:
    same_and_whole(tree, dask_client.get_executor(pure=False), tmp_path / "ended")


def test_engines_say_how_many_calls_they_make_at_a_time(dask_client: Any) -> None:
    dask_client.wait_for_workers(2, timeout=60)
    executor = dask_client.get_executor(pure=False)
    assert chunks._workers_of(executor) == 2
    assert chunks._workers_of(Ending(executor, 0, Path())) == 1


@pytest.mark.parametrize("pure", [False, True])
def test_a_second_scan_by_dask_sees_what_changed(dask_client: Any, tree: Path, pure: bool) -> None:
    executor = dask_client.get_executor(pure=pure)
    before, _ = scan(tree, executor=executor)
    write(ct(ct_pixels(70), 70), tree / "c" / "39.dcm")
    after, _ = scan(tree, executor=executor)
    assert table_bytes(after) == table_bytes(scan(tree, num_workers=0)[0])
    assert table_bytes(after) != table_bytes(before)


def test_a_dataset_is_scanned_by_dask(dask_client: Any, tree: Path, tmp_path: Path) -> None:
    executor = dask_client.get_executor(pure=False)
    frames = DicomFrames(tree, executor=executor, cache_dir=tmp_path / "cache")
    assert len(frames) == 44
    assert frames.report.read == 43


# Ray


def test_ray_gives_the_same_table(ray_executor: Executor, tree: Path, tmp_path: Path) -> None:
    same_and_whole(tree, ray_executor, tmp_path / "ended")


def test_ray_says_how_many_tasks_it_runs_at_a_time(ray_executor: Executor) -> None:
    from dicomtorch.integrations.ray import RayExecutor

    assert chunks._workers_of(ray_executor) == 2
    assert chunks._workers_of(RayExecutor(num_cpus=2)) == 1


def test_keywords_go_to_tasks_of_ray(ray_executor: Executor) -> None:
    assert ray_executor.submit(number, "11", base=2).result(60) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        ray_executor.submit(number, "x").result(60)


def test_a_function_is_made_a_task_once(
    ray_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task that is made anew is pickled and sent to every worker anew."""
    from dicomtorch.integrations.ray import RayExecutor

    assert isinstance(ray_executor, RayExecutor)
    executor = RayExecutor(max_retries=1)
    made: list[Any] = []
    remote = executor._ray.remote

    def noted(function: Any) -> Any:
        made.append(function)
        return remote(function)

    monkeypatch.setattr(executor._ray, "remote", noted)
    assert [executor.submit(number, str(k)).result(60) for k in range(3)] == [0, 1, 2]
    assert made == [number]


# loky


def test_loky_gives_the_same_table_and_goes_on_after_a_worker_ended(
    tree: Path, tmp_path: Path
) -> None:
    require("loky")
    from loky import get_reusable_executor

    alone, _ = scan(tree, num_workers=0)
    executor = get_reusable_executor(max_workers=2)
    assert table_bytes(alone) == table_bytes(scan(tree, executor=executor)[0])
    kept: list[FrameIndex] = []
    with pytest.raises(ExecutorError, match=r"broken \(TerminatedWorkerError\)"):
        scan(tree, executor=Ending(executor, 4, tmp_path / "ended"), checkpoint=kept.append)
    executor = get_reusable_executor(max_workers=2)  # a new one in place of the broken one
    index, report = scan(tree, executor=executor, index=kept[0])
    executor.shutdown()
    assert report.reused == len(kept[0].files["path"]) > 0
    assert report.read == 43 - report.reused
    assert_same(index, alone, numbers=False)


# MPI

UNDER_MPI = """
from mpi4py.futures import MPIPoolExecutor

from dicomtorch import scan
from dicomtorch.scanner import chunks

with open("starts", "a") as starts:
    starts.write("once ")
chunks._SMALLEST, chunks._FIRST = 2, 4
with MPIPoolExecutor({options}) as executor:
    print(executor.num_workers, "workers")
    if {ends}:
        from pathlib import Path
        from tests.support.scanned import Ending
        executor = Ending(executor, 4, Path("ended"))
    index, report = scan({folder!r}, executor=executor)
index.save("by_mpi.index")
"""


def under_mpi(
    folder: Path, cwd: Path, *, options: str = "", ends: bool = False, guard: bool = False
) -> subprocess.CompletedProcess[str]:
    """Scans with two workers of MPI, as docs/how-to/distributed.md has it."""
    require("mpi4py")
    # The one that belongs to the library which mpi4py finds first: of another one, every process would be alone.
    mpiexec = shutil.which("mpiexec", path=str(Path(sys.executable).parent)) or "mpiexec"
    text = UNDER_MPI.format(folder=str(folder), options=options, ends=ends)
    if guard:
        text = "def main():\n" + text.replace("\n", "\n    ")
        text += '\n\nif __name__ == "__main__":\n    main()\n'
    script = cwd / "script.py"
    script.write_text(text)
    return subprocess.run(
        [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200, check=False, cwd=cwd,
    )  # fmt: skip


@pytest.mark.parametrize(("options", "guard"), [("main=False", False), ("", True)])
def test_mpi_gives_the_same_table(tree: Path, tmp_path: Path, options: str, guard: bool) -> None:
    """Workers that do not run the script need no guard in it; others do."""
    done = under_mpi(tree, tmp_path, options=options, guard=guard)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 workers\n"
    assert (tmp_path / "starts").read_text() == "once "
    found = FrameIndex.load(tmp_path / "by_mpi.index")
    assert table_bytes(found) == table_bytes(scan(tree, num_workers=0)[0])


def test_mpi_ends_a_scan_with_its_worker(tree: Path, tmp_path: Path) -> None:
    """The whole job ends with one of its processes, as MPI has it, in place of waiting for an answer."""
    done = under_mpi(tree, tmp_path, options="main=False", ends=True)
    assert done.returncode != 0
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "by_mpi.index").exists()
