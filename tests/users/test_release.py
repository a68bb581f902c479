"""sdist and wheel: what is in them, and that they install in a clean environment and work there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.docs import world
from tests.support.phantoms import write_series
from tests.support.requirements import require

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dicomtorch"

USE = """
import sys
from pathlib import Path
import dicomtorch
from dicomtorch import DicomFrames
here = Path(dicomtorch.__file__).resolve()
assert Path(sys.prefix).resolve() in here.parents, here
frames = DicomFrames(sys.argv[1], isolation="process")
image, meta = frames[0]
assert image.shape == (1, 24, 32), image.shape
assert len(frames) == 3
print(dicomtorch.__version__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    require("build")
    require("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return folder


def files_of_the_package() -> set[str]:
    """What a wheel must have, as git has it or, without git, the folder."""
    listed = subprocess.run(
        ["git", "ls-files", "dicomtorch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = set(listed.stdout.split())
    return names or {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert names == files_of_the_package()
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Dist: pydicom>=3.0.2" in text


def test_the_sdist_has_what_its_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("LICENSE", "CHANGELOG.md", "SECURITY.md", "PRIVACY.md", "requirements.lock"):
        assert needed in names
    assert files_of_the_package() <= names
    assert {"tests/conftest.py", "docs/explain/promises.md", "kernels/pyproject.toml"} <= names


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_it_installs_in_a_clean_environment_and_works(
    built: Path, tmp_path: Path, kind: str
) -> None:
    """Clean but for the dependencies, which are those of this run: they would be downloaded anew."""
    if sys.platform == "win32":
        pytest.skip("paths of environments are those of POSIX here")
    (package,) = built.glob(kind)
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    paths: Any = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # After its own folder, and without what .pth files of this one add, such as an editable install of this checkout.
    Path(paths, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install: list[Any] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
    ]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*install, str(package)], capture_output=True, text=True, timeout=100, env=clean
    )
    assert done.returncode == 0, done.stderr
    write_series(tmp_path / "series", 3)
    done = subprocess.run(
        [python, "-c", USE, str(tmp_path / "series")],
        capture_output=True,
        text=True,
        timeout=100,
        env=clean,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in package.name
    program = subprocess.run(
        [folder / "bin" / "dicomtorch", "scan", str(tmp_path / "series")],
        capture_output=True,
        text=True,
        timeout=100,
        env=clean,
        cwd=tmp_path,
    )
    assert program.returncode == 0, program.stderr
    assert "3" in program.stdout
    if kind == "*.whl":
        the_start_page_works(folder / "bin", clean, tmp_path)


def the_start_page_works(programs: Path, environment: dict[str, str], folder: Path) -> None:
    """Its commands, then its code as one script, as somebody who has only the wheel and a folder of files."""
    page = (ROOT / "docs/start/ten-minutes.md").read_text(encoding="utf-8")
    (folder / "world").mkdir()
    world.studies(folder / "world")
    path = f"{programs}{os.pathsep}{environment['PATH']}"
    given = {**environment, "PATH": path, "XDG_CACHE_HOME": str(folder / "cache")}
    commands = [
        line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()
    ]
    assert len(commands) > 3
    code = "".join(re.findall(r"```python\n(.*?)```", page, re.S))
    (folder / "world/train.py").write_text(code, encoding="utf-8")
    for command in [*commands, "python train.py"]:
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder / "world",
            env=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), (command, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
