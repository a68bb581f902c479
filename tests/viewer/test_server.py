"""The server: how it starts and ends, and that its token is nowhere but in the address."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import webbrowser
from pathlib import Path

import pytest

from dicomtorch import DicomFrames, OptionError, view
from tests.support.phantoms import write_series
from tests.support.requirements import require
from tests.support.viewing import get, token_of


@pytest.fixture(autouse=True)
def libraries():
    require("starlette")
    require("uvicorn")


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    write_series(folder, 3)
    return DicomFrames(folder)


def test_closing_frees_the_port(frames):
    viewing = view(frames, browser=False)
    assert viewing.is_open
    assert get(viewing.url, "/api/summary").info["frames"] == 3
    viewing.close()
    assert not viewing.is_open
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", viewing.port))


def test_two_viewers_have_ports_and_tokens_of_their_own(frames):
    with view(frames, browser=False) as a, view(frames, browser=False) as b:
        assert a.port != b.port
        assert token_of(a.url)[1] != token_of(b.url)[1]
        stranger = f"{token_of(a.url)[0]}/#token={token_of(b.url)[1]}"
        assert get(stranger, "/api/summary").status == 401


def test_a_port_that_is_taken_is_named(frames):
    with (
        view(frames, browser=False) as viewing,
        pytest.raises(OptionError, match="cannot be listened"),
    ):
        view(frames, browser=False, port=viewing.port)
    with pytest.raises(OptionError, match="from 0 to 65535"):
        view(frames, browser=False, port=70000)


def test_the_network_is_opened_by_its_own_option_only(frames):
    with pytest.raises(OptionError, match="allow_remote=True"):
        view(frames, browser=False, host="192.0.2.1")
    with pytest.raises(OptionError, match="one address"):
        view(frames, browser=False, host="0.0.0.0", allow_remote=True)


def test_a_server_that_does_not_start_is_an_error(frames, monkeypatch):
    uvicorn = pytest.importorskip("uvicorn")

    async def not_at_all(self, sockets):
        pass

    monkeypatch.setattr(uvicorn.Server, "serve", not_at_all)
    with pytest.raises(OptionError, match="did not begin to answer"):
        view(frames, browser=False)


def test_nothing_is_printed_when_it_closes_below_a_browser_that_asks(frames, capfd):
    """uvicorn closes the socket before the loop lets go of it: an error on the terminal of whoever ends the viewer."""
    for _ in range(3):
        viewing = view(frames, browser=False)
        closes = threading.Event()

        def ask(url=viewing.url, closes=closes):
            while not closes.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    get(url, "/api/summary")

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        viewing.close()
        closes.set()
        for thread in threads:
            thread.join()
    assert capfd.readouterr().err == ""


def test_a_tunnel_with_another_port_is_answered(frames):
    with view(frames, browser=False, public_port=8123) as viewing:
        assert ":8123/" in viewing.url
        here = viewing.url.replace(":8123/", f":{viewing.port}/")
        assert get(here, "/api/summary", Host="localhost:8123").status == 200
        assert get(here, "/api/summary", Host="localhost:8124").status == 421


def test_the_token_is_not_in_what_is_printed_of_the_object(frames):
    with view(frames, browser=False) as viewing:
        assert token_of(viewing.url)[1] not in repr(viewing)


def test_the_browser_is_opened_through_a_file_that_others_cannot_read(frames, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    with view(frames, browser=True) as viewing:
        (url,) = opened
        assert token_of(viewing.url)[1] not in url
        path = Path(url.removeprefix("file://"))
        if os.name == "posix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert viewing.url in path.read_text(encoding="utf-8")
    assert not path.exists()


def test_slow_lines_get_deflated_planes_of_the_same_values(frames):
    import zlib

    import numpy as np

    with view(frames, browser=False) as viewing:
        plain = get(viewing.url, "/api/frames/0/source")
        packed = get(viewing.url, "/api/frames/0/source?encoding=deflate")
        assert packed.headers["x-encoding"] == "planes"
        planes = np.frombuffer(zlib.decompress(packed.body), np.uint8).reshape(2, -1)
        assert planes.T.tobytes() == plain.body


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc to look for the token in")
def test_the_command_keeps_its_token_and_ends_at_ctrl_c(frames, tmp_path):
    folder = Path(frames.index.path(0)).parent
    command = [sys.executable, "-m", "dicomtorch", "view", str(folder), "--no-browser"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#token=[\w-]{43}", url)
        token = token_of(url)[1]
        assert get(url, "/api/summary").status == 200
        assert get(url, "/api/frames/99/source").status == 404
        assert get(url + "x", "/api/summary").status == 401
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert token.encode() not in path.read_bytes()
            except OSError:
                continue
        assert token.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert token not in out + err
        assert "Traceback" not in err, err
    finally:
        process.kill()
        process.wait()


def test_a_file_that_vanishes_is_an_error_of_its_frame(tmp_path):
    paths = write_series(tmp_path, 2)
    with view(DicomFrames(tmp_path), browser=False) as viewing:
        assert get(viewing.url, "/api/frames/1/source").status == 200
        paths[1].unlink()
        time.sleep(0.01)
        found = get(viewing.url, "/api/frames/1/source")
        assert "error" in found.info
        assert str(tmp_path) not in found.info["error"]
        assert get(viewing.url, "/api/frames/0/source").status == 200
