"""A DICOMweb server of a few data sets on loopback, that does what it is told to do wrong."""

from __future__ import annotations

import contextlib
import io
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

BOUNDARY = "frontier of parts"
TOKEN = "Bearer a-secret-token-of-tests"
PASSING = ("503", "cut", "reset", "missing", "lengths")
FAULTS = (*PASSING, "403", "stall", "hang")
"""Come again, half an answer, none, one that lacks its last part, one whose part is said to be longer, what is
forbidden, an answer that never comes, and one of which half comes."""


@dataclass
class Faults:
    """What the server does wrong.

    Attributes:
        status: Answered to requests whose path has the key; so many times, -1 for always.
        cut: Requests for frames whose answer is cut off.
        lengths: Whether parts say how long they are.
        page: Items of a list at most, whatever is asked for.
        ignores_offset: Whether every page is the first.
        syntax: Said of every frame, if given.
        drops_part: Whether the last frame of several is left out.
        bulk: Where the header says that lookup tables are, before the path.
        bare: Whether whole instances, and frames that are asked for alone, come without parts.
        kind: The media type of frames, where it is not that of octet streams with their transfer syntax.
        locates: Whether frames say their address.
        reverses: Whether frames come in reverse order.
        boundary: Said of answers whose parts are divided by another one.
        missing: Numbers of frames from 1 that are not there.
        alone: Whether lists of frames are refused.
        stalls: Requests for frames that get no answer, or half of one.
        stalls_within: Whether half of it comes.
        framing: How answers say where they end: "length", "chunks" or "close", which does not.
        share: Of requests for frames that fail in ways that pass.
        kinds: These ways, of `FAULTS`.
        keeps_first: Whether of several frames only the first comes.
        most: Frames in one answer; lists of more are refused.
        latency: Seconds before an answer.
    """

    status: dict[str, list[int]] = field(default_factory=dict)
    cut: int = 0
    lengths: bool = True
    page: int = 1000
    ignores_offset: bool = False
    syntax: str = ""
    drops_part: bool = False
    bulk: str = ""
    bare: bool = False
    kind: str = ""
    locates: bool = False
    reverses: bool = False
    boundary: str = ""
    missing: frozenset[int] = frozenset()
    alone: bool = False
    stalls: int = 0
    stalls_within: bool = False
    framing: str = "length"
    share: float = 0.0
    kinds: tuple[str, ...] = PASSING
    keeps_first: bool = False
    most: int = 1000
    latency: float = 0.0


class Server:
    """What runs.

    Attributes:
        address: Of it, for `DicomFrames`.
        faults: What it does wrong; may be changed.
        asked: The paths that were asked for.
        accepts: What was accepted each time.
        most_at_once: Requests for frames.
        failed: How many of these, as `Faults.share` wants it, by kind.
        goes_on: Lets go of those that wait at the server.
    """

    def __init__(self, datasets: list[Dataset], token: str = "") -> None:
        self.datasets = datasets
        self.token = token
        self.faults = Faults()
        self.asked: list[str] = []
        self.accepts: list[str] = []
        self.most_at_once = self._at_once = 0
        self.failed: Counter[str] = Counter()
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self.goes_on = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...  # clients end connections as they like

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"dicomweb+http://127.0.0.1:{self.server.server_port}/web"

    def answer(self, handler: Any) -> None:
        time.sleep(self.faults.latency)
        parts = urlsplit(handler.path)
        self.asked.append(handler.path)
        self.accepts.append(handler.headers.get("Accept", ""))
        if self.token and handler.headers.get("Authorization") != self.token:
            self.send(handler, 401, "text/plain", b"no")
            return
        for key, (status, *times) in self.faults.status.items():
            if key in parts.path and (not times or times[0]):
                if times:
                    self.faults.status[key][1] -= 1
                self.send(handler, status, "text/plain", b"no", {"Location": "http://127.0.0.1:1/"})
                return
        names = parts.path.removeprefix("/web/").split("/")
        query = parse_qs(parts.query)
        if "frames" in names:
            self.frames(handler, names)
        elif "bulk" in names:
            (one,) = self.found(names)
            (data,) = (each.value for each in one.iterall() if each.tag == int(names[-1], 16))
            self.send_parts(handler, [("application/octet-stream", data)])
        elif names[-1] == "metadata":
            listed = [self.described(one) for one in self.found(names)]
            self.send(handler, 200, "application/dicom+json", json.dumps(listed).encode())
        elif names[-2:-1] == ["instances"]:
            self.whole(handler, names)
        else:
            self.listing(handler, names, query)

    def whole(self, handler: Any, names: list[str]) -> None:
        """The file of an instance, alone or as the only part of several."""
        found = self.found(names)
        if not found:
            self.send(handler, 404, "text/plain", b"no")
            return
        buffer = io.BytesIO()
        for one in found:
            one.save_as(buffer, enforce_file_format=True)
        if self.faults.bare:
            self.send(handler, 200, "application/dicom", buffer.getvalue())
        else:
            self.send_parts(handler, [("application/dicom", buffer.getvalue())])

    def found(self, names: list[str]) -> list[Dataset]:
        wanted = dict(zip(names[::2], names[1::2], strict=False))
        return [
            one
            for one in self.datasets
            if wanted.get("studies", one.StudyInstanceUID) == one.StudyInstanceUID
            and wanted.get("series", one.SeriesInstanceUID) == one.SeriesInstanceUID
            and wanted.get("instances", one.SOPInstanceUID) == one.SOPInstanceUID
        ]

    def listing(self, handler: Any, names: list[str], query: dict[str, list[str]]) -> None:
        tags = ["StudyInstanceUID"]
        if names[-1] == "instances":
            tags += ["SeriesInstanceUID", "SOPInstanceUID"]
        keys: dict[tuple[str, ...], Dataset] = {}
        for one in self.found(names[:-1]):
            keys.setdefault(tuple(str(one[tag].value) for tag in tags), one)
        items = []
        for one in keys.values():
            small = Dataset()
            for tag in tags:
                setattr(small, tag, one[tag].value)
            items.append(small.to_json_dict())
        offset = 0 if self.faults.ignores_offset else int(query.get("offset", ["0"])[0])
        most = min(int(query.get("limit", ["100"])[0]), self.faults.page)
        page = items[offset : offset + most]
        if page:
            self.send(handler, 200, "application/dicom+json", json.dumps(page).encode())
        else:
            self.send(handler, 204, "", b"")

    def described(self, one: Dataset) -> dict[str, Any]:
        base = self.faults.bulk or f"http://127.0.0.1:{self.server.server_port}"
        path = f"/web/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
        below = f"{base}{path}/instances/{one.SOPInstanceUID}/bulk"
        header: dict[str, Any] = one.to_json_dict(100, lambda value: f"{below}/{value.tag:08X}")
        header.pop("7FE00010", None)
        return header

    @property
    def requests(self) -> list[str]:
        """For frames."""
        return [path for path in self.asked if "/frames/" in path]

    @property
    def frames_asked(self) -> list[tuple[str, int]]:
        """(instance, number from 1) of frames as often as they were asked for."""
        parts = [path.split("/") for path in self.requests]
        return [(part[-3], int(number)) for part in parts for number in part[-1].split(",")]

    def frames(self, handler: Any, names: list[str]) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            fault = self._fault()
            if fault in ("", "missing", "lengths"):
                self._frames(handler, names, fault)
            else:
                self._fail(handler, fault)
        finally:
            with self._lock:
                self._at_once -= 1

    def _fault(self) -> str:
        """What goes wrong with a request this time, "" if nothing does."""
        with self._lock:
            if self._random.random() >= self.faults.share:
                return ""
            fault = self.faults.kinds[sum(self.failed.values()) % len(self.faults.kinds)]
            self.failed[fault] += 1
            return fault

    def _fail(self, handler: Any, fault: str) -> None:
        """Answers with a fault that passes."""
        if fault.isdigit():
            self.send(handler, int(fault), "text/plain", b"no")
            return
        if fault in ("cut", "hang"):
            handler.send_response(200)
            handler.send_header("Content-Length", "4000")
            handler.end_headers()
            handler.wfile.write(b"no")
            handler.wfile.flush()
        if fault in ("stall", "hang"):
            self.goes_on.wait(60)
        handler.close_connection = True

    def _frames(self, handler: Any, names: list[str], fault: str) -> None:
        found = self.found(names)
        numbers = [int(number) for number in names[-1].split(",")]
        count = int(found[0].get("NumberOfFrames", 1)) if found else 0
        if len(numbers) > (1 if self.faults.alone else self.faults.most):
            self.send(handler, 400, "text/plain", b"no")
            return
        if not found or max(numbers) > count or self.faults.missing & set(numbers):
            self.send(handler, 404, "text/plain", b"no")
            return
        (one,) = found
        syntax = one.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            frames = list(generate_frames(one.PixelData, number_of_frames=count))
        else:
            size = len(one.PixelData) // count
            frames = [one.PixelData[k * size : (k + 1) * size] for k in range(count)]
        octets = f"application/octet-stream; transfer-syntax={self.faults.syntax or syntax}"
        kind = self.faults.kind or octets
        if self.faults.bare and len(numbers) == 1:
            self.send(handler, 200, kind, frames[numbers[0] - 1])
            return
        if self.faults.locates:
            address = handler.path.rpartition("/")[0]
            kinds = [f"{kind}\r\nContent-Location: {address}/{number}" for number in numbers]
        else:
            kinds = [kind] * len(numbers)
        parts = [(kind, frames[number - 1]) for kind, number in zip(kinds, numbers, strict=True)]
        if self.faults.reverses:
            parts.reverse()
        if fault == "missing" or (self.faults.drops_part and len(parts) > 1):
            parts.pop()
        if self.faults.keeps_first:
            del parts[1:]
        self.send_parts(handler, parts, 7 if fault == "lengths" else 0)

    def send_parts(self, handler: Any, parts: list[tuple[str, bytes]], longer: int = 0) -> None:
        body = b""
        for kind, data in parts:
            says = self.faults.lengths or longer
            length = f"Content-Length: {len(data) + longer}\r\n" if says else ""
            body += f"\r\n--{BOUNDARY}\r\nContent-Type: {kind}\r\n{length}\r\n".encode() + data
        body += f"\r\n--{BOUNDARY}--\r\n".encode()
        said = self.faults.boundary or BOUNDARY
        kind = f'multipart/related; type="application/octet-stream"; boundary="{said}"'
        self.send(handler, 200, kind, body[2:])

    def send(
        self, handler: Any, status: int, kind: str, body: bytes, more: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        is_framed = "/frames/" in handler.path and self.faults.framing != "length"
        if not is_framed:
            handler.send_header("Content-Length", str(len(body)))
        elif self.faults.framing == "chunks":
            handler.send_header("Transfer-Encoding", "chunked")
            body = (
                b"".join(
                    b"%x\r\n%b\r\n" % (len(body[at : at + 999]), body[at : at + 999])
                    for at in range(0, len(body), 999)
                )
                + b"0\r\n\r\n"
            )
        else:
            handler.close_connection = True
        for name, value in (more or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if self.faults.stalls and "/frames/" in handler.path:
            self.faults.stalls -= 1
            if self.faults.stalls_within:
                handler.wfile.write(body[: len(body) // 2])
                handler.wfile.flush()
            self.goes_on.wait(60)
            handler.close_connection = True
            return
        if self.faults.cut and "/frames/" in handler.path:
            self.faults.cut -= 1
            body = body[: len(body) // 2]
            handler.close_connection = True
        handler.wfile.write(body)


@contextlib.contextmanager
def dicomweb_server(datasets: list[Dataset], token: str = "") -> Iterator[Server]:
    """A server of `datasets`, whose headers must have `token` if it is given."""
    made = Server(datasets, token)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.goes_on.set()
        made.server.shutdown()
        made.server.server_close()
        thread.join()
