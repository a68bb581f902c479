"""The built site in a real browser: nothing asked from elsewhere, no complaint, accessible, and searchable."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.requirements import browser, require

ROOT = Path(__file__).parents[2]
PAGES = (
    "index.html",
    "start/ten-minutes.html",
    "how-to/masks.html",
    "explain/values.html",
    "generated/reference/datasets.html",
    "generated/gallery/plot_08_ct_and_annotations.html",
)
FOUND = {"window": "values", "HU": "values", "patient split": "selecting", "RTSTRUCT": "masks"}
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any:
    fcntl.ioctl(any, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Turns on the network of this machine with itself, all that a new namespace may have, and goes on with a command."""
FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=\"(https?:)?//|<link\b[^>]*rel=\"(?:stylesheet|preload|icon)\"[^>]*href=\"(https?:)?//"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built as `make docs` does, without a network where the system can take it away."""
    for name in (
        "sphinx",
        "myst_parser",
        "furo",
        "sphinx_gallery",
        "sphinx_copybutton",
        "sphinx_design",
    ):
        require(name)
    if ready := os.environ.get("DICOMTORCH_SITE"):
        return Path(ready)
    folder: Path = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-n",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "docs",
        str(folder),
    ]
    alone = ["unshare", "--net", "--map-root-user"]
    if (
        shutil.which("unshare")
        and not subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    ):
        command = [*alone, sys.executable, "-c", LOOPBACK, *command]
    given = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_no_page_asks_for_something_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    asking = [path.name for path in pages if FETCHED.search(path.read_text(encoding="utf-8"))]
    assert asking == []


def test_no_page_of_an_example_has_a_path_of_this_machine(site):
    """As warnings of other libraries have, and folders that an example makes."""
    ours = re.compile("|".join(map(re.escape, (sys.prefix, str(ROOT), tempfile.gettempdir()))))
    pages = list((site / "generated/gallery").glob("plot_*.html"))
    assert len(pages) >= 12
    having = [path.name for path in pages if ours.search(path.read_text(encoding="utf-8"))]
    assert having == []


def test_every_public_name_has_an_entry(site):
    import dicomtorch

    text = "".join(
        path.read_text(encoding="utf-8") for path in (site / "generated/reference").glob("*.html")
    )
    names = [name for name in dicomtorch.__all__ if name != "__version__"]
    assert [name for name in names if f'id="dicomtorch.{name}"' not in text] == []


@pytest.fixture(scope="module")
def address(site):
    """The site, served."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of requests."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    require("browser")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        made = playwright.chromium.launch(executable_path=browser(), args=flags)
        stack.callback(made.close)
        yield made


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_load_whole_and_without_complaint(address, chromium, width):
    context = chromium.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    hosts: set[str] = set()
    complaints: list[str] = []
    page.on(
        "request",
        lambda request: hosts.add(request.url.split("/")[2]) if "//" in request.url else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    for name in PAGES:
        page.goto(f"{address}/{name}")
        page.wait_for_load_state("networkidle")
        wide = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 1, f"{name} scrolls sideways by {wide} at {width}"
        broken = page.evaluate(
            "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        assert broken == [], name
    assert complaints == []
    assert hosts == {address.split("/")[2]}
    context.close()


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *((name, 1280, "light") for name in PAGES[:5]),
        ("generated/gallery/index.html", 390, "dark"),
        ("generated/reference/sources.html", 390, "light"),
    ],
)
def test_no_serious_violation_of_accessibility(address, chromium, name, width, scheme):
    require("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(f"{address}/{name}")
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.close()


@pytest.mark.parametrize(("words", "expected"), FOUND.items())
def test_search_finds(address, chromium, words, expected):
    page = chromium.new_page()
    page.goto(f"{address}/search.html?q={words.replace(' ', '+')}")
    page.wait_for_selector("#search-results ul.search li a", timeout=30_000)
    page.wait_for_timeout(1500)
    links = page.eval_on_selector_all(
        "#search-results ul.search li a", "all => all.map(a => a.href)"
    )
    assert any(expected in link for link in links[:10]), links[:10]
    page.close()
