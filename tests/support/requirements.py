"""What a test needs and a machine may lack: `require("simpleitk")` skips, or fails where the run promised it.

The promise is DICOMTORCH_REQUIRE=samples,simpleitk,...; `conftest` turns a skip into a failure by its reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from tests.support.orthanc import orthanc_program

MODULES = {"simpleitk": "SimpleITK"}


def samples_folder() -> Path | None:
    """The folder of real samples, `None` without one."""
    folder = os.environ.get("DICOMTORCH_SAMPLES", "")
    return Path(folder) if folder and Path(folder).is_dir() else None


def series_folder() -> Path | None:
    """The folder of real series with reference volumes, `None` without one."""
    folder = os.environ.get("DICOMTORCH_SERIES", "")
    return Path(folder) if folder and Path(folder).is_dir() else None


def browser() -> str:
    """The path of Chromium, where playwright is there to drive it; "" if not."""
    if importlib.util.find_spec("playwright") is None:
        return ""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")


def reason_to_skip(name: str) -> str:
    """Why what is called `name` cannot be used; "" if it can."""
    if name == "samples":
        return "" if samples_folder() else "DICOMTORCH_SAMPLES does not name a folder of samples"
    if name == "series":
        return "" if series_folder() else "DICOMTORCH_SERIES does not name a folder of series"
    if name == "nginx":
        found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        return "" if found else "nginx is not installed (Debian: nginx-light)"
    if name == "browser":
        return (
            "" if browser() else "browser is not installed (Chromium, and playwright to drive it)"
        )
    if name == "orthanc":
        return "" if orthanc_program() else "orthanc is not installed, or not its DICOMweb plug-in"
    missing = importlib.util.find_spec(MODULES.get(name, name)) is None
    return f"{name} is not installed" if missing else ""


def require(name: str) -> None:
    """Skips the test, or the module that calls it, unless "samples", "series" or the library called `name` is there."""
    if reason := reason_to_skip(name):
        pytest.skip(reason, allow_module_level=True)
