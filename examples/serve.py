"""A server of the files of a folder for an example: HTTP on this machine, with ranges and ETags as stores have them."""

from __future__ import annotations

import functools
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(SimpleHTTPRequestHandler):
    """Lists folders as the standard library does, gives ranges of files, and notes them."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, asked: list[tuple[str, int, int]], **options: Any) -> None:
        self.asked = asked
        super().__init__(*args, **options)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return super().do_GET() if with_body else super().do_HEAD()
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(found[1]) if found else 0
        end = min(int(found[2]) + 1, len(data)) if found and found[2] else len(data)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}-{len(data):x}"')
        self.send_header("Content-Length", str(end - first))
        self.end_headers()
        if with_body:
            self.asked.append((path.name, first, end))
            self.wfile.write(data[first:end])
        return None

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server:
    """Serves a folder until the process ends.

    Attributes:
        address: Of the folder.
        asked: (name, first, end) of the bytes that were asked for, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, int, int]] = []
        handler = functools.partial(Handler, directory=str(folder), asked=self.asked)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_port}/"
