"""A server of files over HTTP that answers late or wrongly, as asked: `python -m tests.support.http_server FOLDER ...`.

It knows GET and HEAD, one range, ETag and If-Match, and lists folders as pages of links. Faults are drawn from a seed
for each request for a range; what is asked for again is drawn again. Where there is a file `.query`, addresses need its
text as their query, as signed ones do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import html
import json
import random
import subprocess
import sys
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FAULTS = ("cut", "503", "reset", "ignored", "short", "403", "stall", "hang")
"""A body that breaks off, a server that is busy, a connection that is reset, a range that is ignored, a range that is
shorter than was asked for, what is forbidden, an answer that never comes, and one of which half of the body comes."""


class Server:
    """Answers requests for the files of a folder."""

    def __init__(self, folder: Path, latency: float, rate: float, faults: list[str]) -> None:
        self.folder = folder
        self.latency = latency
        self.rate = rate
        self.faults = faults
        self.random = random.Random(1)
        self.counts: Counter[str] = Counter()
        self.gone: set[str] = set()  # whose next requests find a replaced object

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                if not await self.one(method, target, headers, writer):
                    break
        with contextlib.suppress(ConnectionError):
            writer.close()

    async def one(
        self, method: str, target: str, headers: dict[str, str], writer: asyncio.StreamWriter
    ) -> bool:
        """Answers one request; `False` if the connection is over."""
        escaped, _, query = target.partition("?")
        path = urllib.parse.unquote(escaped)
        if path == "/-/counts":
            body = json.dumps(self.counts).encode()
            self.counts.clear()
            return await self.send(writer, 200, {}, body)
        self.counts[method] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        signed = self.folder / ".query"
        if signed.exists() and signed.read_text() != query:
            return await self.send(writer, 403, {}, b"")
        file = self.folder / path.lstrip("/")
        if file.is_dir():
            names = sorted(f"{one.name}/" if one.is_dir() else one.name for one in file.iterdir())
            links = "".join(
                f'<a href="{urllib.parse.quote(name)}">{html.escape(name)}</a>\n' for name in names
            )
            return await self.send(writer, 200, {"Content-Type": "text/html"}, links.encode())
        if not file.is_file():
            return await self.send(writer, 404, {}, b"")
        data = file.read_bytes()
        etag = '"' + hashlib.md5(data[:1000] + str(len(data)).encode()).hexdigest() + '"'
        found = {"ETag": etag, "Accept-Ranges": "bytes"}
        if headers.get("if-match", etag) != etag:
            return await self.send(writer, 412, {}, b"")
        if method == "HEAD":
            found["Content-Length"] = str(len(data))
            return await self.send(writer, 200, found, None)
        wanted = headers.get("range")
        if wanted is None:
            return await self.send(writer, 200, found, data)
        start, _, last = wanted.removeprefix("bytes=").partition("-")
        first, end = int(start), min(int(last or len(data)) + 1, len(data))
        if first >= len(data):
            return await self.send(writer, 416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        body = data[first:end]
        found["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
        if self.faults and self.random.random() < self.rate:
            return await self.fail(self.random.choice(self.faults), writer, found, body, data)
        self.counts["bytes"] += len(body)
        return await self.send(writer, 206, found, body)

    async def fail(
        self,
        fault: str,
        writer: asyncio.StreamWriter,
        headers: dict[str, str],
        body: bytes,
        data: bytes,
    ) -> bool:
        """Answers wrongly."""
        self.counts[fault] += 1
        if fault in ("503", "403"):
            return await self.send(writer, int(fault), {}, b"busy")
        if fault == "ignored":
            return await self.send(writer, 200, {"ETag": headers["ETag"]}, data)
        if fault == "short":
            span = headers["Content-Range"]
            first = int(span.split(" ")[1].partition("-")[0])
            half = body[: len(body) // 2]
            headers["Content-Range"] = f"bytes {first}-{first + len(half) - 1}/{len(data)}"
            return await self.send(writer, 206, headers, half)
        if fault == "stall":
            await asyncio.sleep(30)
            return False
        if fault == "hang":
            headers["Content-Length"] = str(len(body))
            await self.send(writer, 206, headers, body[: len(body) // 2], length=False)
            await asyncio.sleep(30)
            return False
        if fault == "cut":
            headers["Content-Length"] = str(len(body))
            await self.send(writer, 206, headers, body[: len(body) // 2], length=False)
        writer.transport.abort() if fault == "reset" else writer.close()
        return False

    async def send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        headers: dict[str, str],
        body: bytes | None,
        length: bool = True,
    ) -> bool:
        """Writes an answer."""
        if length and body is not None:
            headers = headers | {"Content-Length": str(len(body))}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        await writer.drain()
        return True


async def serve(arguments: argparse.Namespace) -> None:
    """Serves until the standard input ends."""
    faults = [one for one in arguments.faults.split(",") if one]
    server = Server(arguments.folder, arguments.latency, arguments.rate, faults)
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0, limit=1 << 16)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def http_server(
    folder: Path, *, latency: float = 0.0, rate: float = 0.0, faults: str = ""
) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.support.http_server", str(folder)]
    command += ["--latency", str(latency), "--rate", str(rate), "--faults", faults]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait(10)


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def counts(address: str) -> dict[str, int]:
    """What a server was asked since the last time."""
    with _DIRECT.open(f"{address}/-/counts", timeout=30) as answer:
        found: dict[str, int] = json.load(answer)
        return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=0.0, metavar="FRACTION")
    parser.add_argument("--faults", default="", metavar=",".join(FAULTS))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args()))
