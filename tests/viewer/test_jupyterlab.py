"""The viewer in JupyterLab, in a real browser: a cell is run, the wheel turned, the notebook saved."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.phantoms import ct_pixels, write_series
from tests.support.requirements import browser, require

pytestmark = pytest.mark.timeout(300)

OPTIONS = (
    *("--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0"),
    *("--IdentityProvider.token=abc", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
)
SOURCE = 'from dicomtorch import DicomFrames\nframes = DicomFrames("ct")\nframes.widget()'
SHOWN = (
    "[...document.querySelectorAll('.jp-OutputArea-output *')].find((each) => each.viewer)?.viewer"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with frames, and a notebook of one cell."""
    folder = tmp_path / "notebooks"
    (folder / "ct").mkdir(parents=True)
    write_series(folder / "ct", 12)
    cell: dict[str, Any] = {
        "cell_type": "code",
        "execution_count": None,
        "id": "a",
        "metadata": {},
        "outputs": [],
    }
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {
        "cells": [{**cell, "source": SOURCE}],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / "look.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return folder


@pytest.fixture
def address(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Where JupyterLab is."""
    require("jupyterlab")
    require("anywidget")
    environment = os.environ | {
        "HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1", "XDG_CACHE_HOME": str(tmp_path),
    }  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--ServerApp.root_dir={folder}"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    reading = threading.Thread(target=server.stdout.read)
    try:
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/lab", said)):
            line = server.stdout.readline()
            assert line, said
            said += line
        reading.start()
        yield f"http://127.0.0.1:{found[1]}/lab/tree/look.ipynb?token=abc"
    finally:
        server.terminate()
        server.wait(30)
        if reading.ident is not None:
            reading.join(30)
        server.stdout.close()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The notebook in a browser that asks nobody else for anything."""
    require("browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, contextlib.ExitStack() as stack:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
        chromium = playwright.chromium.launch(executable_path=browser(), args=flags)
        stack.callback(chromium.close)
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(address)
        yield page


def _until(page: Any, expression: str) -> None:
    page.wait_for_function(f"!!({expression})", polling=100)


def _run_first_cell(page: Any) -> None:
    """What is typed before the kernel listens is lost."""
    for _ in range(30):
        page.click(".jp-Notebook-cell .cm-content")
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(2000)
        if "[ ]" not in page.inner_text(".jp-Notebook-cell .jp-InputPrompt"):
            return
    pytest.fail("the cell does not run")


def _source(page: Any) -> np.ndarray[Any, Any]:
    """What the source pane has before it is scaled."""
    width, height, data = page.evaluate(
        f"(() => {{ const s = {SHOWN}.source.scratch; return [s.width, s.height, "
        "btoa(Array.from(s.pixels.data, (v) => String.fromCharCode(v)).join(''))]; })()"
    )
    flat = np.frombuffer(base64.b64decode(data), np.uint8)
    return flat.reshape(height, width, 4)[..., 0].astype(np.int16)


def test_a_cell_shows_frames_and_saves_none(page: Any, folder: Path) -> None:
    _run_first_cell(page)
    _until(page, f"{SHOWN}?.summary && {SHOWN}.source.scratch?.pixels")
    page.hover(".dtv-source canvas")
    for _ in range(4):
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(50)
    _until(page, f"{SHOWN}.k == 4 && !{SHOWN}.store.wished.size && !{SHOWN}.pending")
    page.wait_for_timeout(300)
    values = ct_pixels(4).astype(np.float64)
    wanted = np.clip((values - (40 - 0.5)) / (400 - 1) + 0.5, 0, 1) * 255
    assert np.abs(_source(page) - wanted).max() <= 1
    page.keyboard.press("Control+s")
    book = folder / "look.ipynb"
    for _ in range(100):
        saved = json.loads(book.read_text(encoding="utf-8"))
        if saved["cells"][0]["outputs"]:
            break
        page.wait_for_timeout(100)
    (output,) = saved["cells"][0]["outputs"]
    assert {*output["data"]} == {"application/vnd.jupyter.widget-view+json", "text/plain"}
    text = json.dumps(saved)
    for pixels in map(ct_pixels, range(12)):
        assert base64.b64encode(pixels.tobytes())[4:60].decode() not in text
