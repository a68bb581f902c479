"""`dicomtorch view`: what it makes of its arguments; `tests/viewer` has what it serves."""

from __future__ import annotations

import numpy as np
import pytest

from dicomtorch.cli import main as cli
from dicomtorch.cli.options import EXIT_ERROR, EXIT_OK
from dicomtorch.viewer import server
from tests.support.phantoms import ct, ct_pixels, write, write_series
from tests.support.requirements import require
from tests.support.viewing import get, phantom


@pytest.fixture
def asked(monkeypatch):
    """Answers of the viewer while the command runs: {path: Reply}."""
    require("starlette")
    require("uvicorn")
    found = {}
    paths: list[str] = []

    def look(viewing):
        for path in paths:
            found[path] = get(viewing.url, f"/api/{path}")

    monkeypatch.setattr(server.Viewing, "wait", look)
    return paths, found


def run(*arguments):
    return cli.main(["view", *map(str, arguments), "--no-browser"])


def test_shows_what_training_gets_with_the_options(capsys, tmp_path, asked):
    paths, found = asked
    write_series(tmp_path, 2)
    paths += ["summary", "samples/1/training", "samples/1"]
    assert run(tmp_path, "--size", 12, 16, "--window", 40, 100, "--tags", "PatientSex") == EXIT_OK
    assert found["samples/1/training"].array.shape == (1, 12, 16)
    assert found["samples/1"].info["meta"]["PatientSex"] == "F"
    assert found["samples/1"].info["meta"]["WindowWidth"] == 100
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def test_masks_have_the_names_that_were_asked_for(tmp_path, asked):
    paths, found = asked
    phantom(tmp_path)
    paths += ["summary"]
    assert run(tmp_path, "--masks", "--labels", "kidney", "liver") == EXIT_OK
    assert [one["name"] for one in found["summary"].info["legend"]] == ["kidney", "liver"]
    assert found["summary"].info["frames"] == 12, "masks are no images to look at"


def test_what_nothing_decodes_keeps_its_index(tmp_path, asked):
    paths, found = asked
    write_series(tmp_path, 2)
    video = ct(ct_pixels(5), 5)
    write(video, tmp_path / "005.dcm")
    data = (tmp_path / "001.dcm").read_bytes()
    syntax = b"1.2.840.10008.1.2.1\0"
    at = data.index(b"UI\x14\0" + syntax)
    changed = data[: at + 4] + b"1.2.840.10008.1.2.99"[:20] + data[at + 24 :]
    (tmp_path / "001.dcm").write_bytes(changed)
    paths += ["summary", "series/0", "frames/0/source"]
    assert run(tmp_path) == EXIT_OK
    frames = found["series/0"].info["frames"]
    assert np.array_equal(sorted(frames), np.arange(found["summary"].info["frames"]))


def test_the_network_needs_its_own_option(capsys, tmp_path):
    write_series(tmp_path, 1)
    assert run(tmp_path, "--host", "192.0.2.1") == EXIT_ERROR
    assert "--allow-remote" in capsys.readouterr().err
