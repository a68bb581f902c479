"""What tests of the viewer ask it, over HTTP or sockets, and a volume with masks to look at."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.support.mask_phantoms import segmentation, series


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def info(self) -> Any:
        """What is said of the bytes, or the answer."""
        return json.loads(self.headers.get("x-info") or self.body)

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The array that was sent."""
        return np.frombuffer(self.body, f"<{self.info['dtype']}").reshape(self.info["shape"])


def token_of(url: str) -> tuple[str, str]:
    base, token = url.split("/#token=")
    return base, token


def get(url: str, path: str, **headers: str) -> Reply:
    """An answer of the viewer at `url`, asked as its page asks."""
    base, token = token_of(url)
    request = urllib.request.Request(
        base + path, headers={"Authorization": f"Bearer {token}", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return _reply(reply.status, reply)
    except urllib.error.HTTPError as error:
        with error:
            return _reply(error.code, error)


def _reply(status: int, reply: Any) -> Reply:
    headers = {name.lower(): value for name, value in reply.headers.items()}
    return Reply(status, headers, reply.read())


def raw(port: int, request: str | bytes) -> tuple[int, str]:
    """(status, everything that came back) of bytes sent as they are; 0 where the connection was just closed."""
    data = request.encode("latin-1") if isinstance(request, str) else request
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        connection.settimeout(20)
        received = b""
        while True:
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            received += part
    text = received.decode("latin-1")
    return (int(text.split()[1]) if text.startswith("HTTP/") else 0), text


def phantom(folder: Path, slices: int = 12, rows: int = 40, columns: int = 48) -> Path:
    """A CT volume of an ellipse with two balls, and a SEG of these."""
    z, y, x = np.mgrid[0:slices, 0:rows, 0:columns]
    body = ((y - rows / 2) / (rows * 0.42)) ** 2 + ((x - columns / 2) / (columns * 0.46)) ** 2 < 1
    values = np.where(body, 40 + 25 * np.sin(x / 5) * np.cos(y / 7), -1000)
    balls = [
        (z - slices * a) ** 2 * 4 + (y - rows * b) ** 2 + (x - columns * c) ** 2
        < (rows * 0.14) ** 2
        for a, b, c in ((0.5, 0.4, 0.65), (0.35, 0.62, 0.35))
    ]
    values[balls[0]], values[balls[1]] = 160, -90
    images = series(
        folder,
        slices,
        (rows, columns),
        PixelData=lambda k: values[k].astype(np.int16).tobytes(),
        PatientName="LINDGREN^ASTRID",
    )
    planes = [
        (number, k, ball[k])
        for number, ball in enumerate(balls, 1)
        for k in range(slices)
        if ball[k].any()
    ]
    segmentation(folder / "seg.dcm", images, planes, names=("liver", "kidney"))
    return folder
