"""`view`: the viewer in a browser, from a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any, Self

from dicomtorch.errors import OptionError, import_optional
from dicomtorch.viewer.app import make_app
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.looked import Opened

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_START_SECONDS = 20.0
_STOP_SECONDS = 30.0
_MOST_CONNECTIONS = 64


class Viewing:
    """A viewer that runs; a context manager.

    Attributes:
        url: Where it is, with the token that opens it behind the `#`: whoever has it sees the images.
        port: Where it listens.
    """

    def __init__(self, content: Content, host: str, port: int, public_port: int | None) -> None:
        uvicorn: Any = import_optional("uvicorn", "viewer")
        self._content = content
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        token = secrets.token_urlsafe(32)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{public_port or self.port}/#token={token}"
        names = {"127.0.0.1", "localhost", "[::1]"} if host in _LOOPBACK else {name}
        ports = {self.port, public_port or self.port}
        hosts = {f"{one}:{number}" for one in names for number in ports}
        config = uvicorn.Config(
            make_app(content, hosts, token),
            access_log=False,
            log_config=None,
            log_level="critical",  # what goes wrong is in the answers; a traceback could name files
            server_header=False,
            date_header=False,
            proxy_headers=False,
            http="h11",
            ws="none",
            lifespan="off",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=1,
        )
        self._server: Any = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._run,
            name="dicomtorch-viewer",
            daemon=True,
        )
        self._thread.start()
        end = time.monotonic() + _START_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.005)
        self._opener: Path | None = None
        if not self._server.started:
            self.close()
            raise OptionError(
                f"the viewer did not begin to answer on port {self.port} within {_START_SECONDS:g} s; try again, or "
                "another port"
            )

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except (OSError, ValueError):  # uvicorn closes the socket before the loop lets go of it
            if not self._server.should_exit:
                raise

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._on_error)
        await self._server.serve(sockets=[self._socket])

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # A browser that asks while the socket is closed is no fault of anybody.
        if not self._server.should_exit:
            loop.default_exception_handler(context)

    def __repr__(self) -> str:
        # The token opens the images: reprs get into logs and saved notebooks.
        return f"<dicomtorch.view on port {self.port}; .url opens it, .close() ends it>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def open(self) -> bool:
        """Opens the address in the browser of this machine; `False` where there is none.

        The browser is given a file that only this user can read, because every user of a machine can see the arguments
        of its processes.
        """
        descriptor, name = tempfile.mkstemp(prefix="dicomtorch-view-", suffix=".html")
        self._opener = Path(name)
        address = html.escape(self.url, quote=True)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(
                f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
                f'<meta http-equiv="refresh" content="0; url={address}"><title>dicomtorch</title>'
            )
        try:
            return webbrowser.open(self._opener.as_uri())
        except webbrowser.Error:
            return False

    def wait(self) -> None:
        """Returns when it is closed."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Ends it; the port is free afterwards."""
        self._server.should_exit = True
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_SECONDS)
        self._socket.close()
        self._content.close()
        if self._opener is not None:
            with contextlib.suppress(OSError):
                self._opener.unlink()


def view(
    dataset: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    public_port: int | None = None,
    allow_remote: bool = False,
    show_paths: bool = False,
    browser: bool | None = None,
    title: str = "",
    **opened: Any,
) -> Viewing:
    """Shows a dataset, or a loader of one, in a browser: what files have, and beside it what training gets.

    Runs in a thread until `close()`. A loader is shown batch by batch, in the order of the next epoch. Looking changes
    neither random states nor the position of a training: transforms, samplers and `collate_fn` run in a forked copy of
    this process.

    Args:
        dataset: `DicomFrames`, `DicomClips`, `DicomVolumes`, `DicomCrops`, a `Subset` of one, or a loader of these.
        host: An address of this machine to listen at.
        port: 0 for one that is free.
        public_port: The port that browsers ask for, where it is another one, as through an SSH tunnel.
        allow_remote: Whether `host` may be something else than the loopback: whoever has the address and the token can
            then read the images over the network, unencrypted.
        show_paths: Whether files are named, by their path below the root; paths often name patients.
        browser: Whether to open the browser; `None`: where there is a screen and this is no notebook.
        title: What the page is called.
        **opened: What else `Opened` takes.

    Returns:
        `url`, with the token, and `close()`.

    Raises:
        OptionError: It is no such dataset, the port is taken, `host` is no address of this machine or not allowed, or
            nothing answers there within 20 s.
        MissingDependencyError: Starlette or uvicorn are not installed.

    Example:
        >>> viewing = dicomtorch.view(frames)                                  # doctest: +SKIP
        >>> viewing.url, viewing.close()                                       # doctest: +SKIP
    """
    if host not in _LOOPBACK and not allow_remote:
        raise OptionError(
            f"host={host!r} can be reached over the network; pass allow_remote=True (--allow-remote) if whoever has "
            "the address and the token may read the images, or use an SSH tunnel to 127.0.0.1"
        )
    if host in ("", "0.0.0.0", "::"):
        raise OptionError(
            "host must be one address or name of this machine, since the viewer answers to that name only"
        )
    content = Content(Opened(dataset, **opened), show_paths=show_paths, title=title)
    viewing = Viewing(content, host, port, public_port)
    if _has_screen() if browser is None else browser:
        viewing.open()
    return viewing


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        raise OptionError(f"port must be from 0 to 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise OptionError(
            f"port {port} of {host} cannot be listened at ({error.strerror or error}); port 0 takes one that is free"
        ) from error
    return made


def _has_screen() -> bool:
    if "ipykernel" in sys.modules or "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
