"""The viewer as a web application: Starlette routes over `Content`, three static files, the guard around all."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from dicomtorch.errors import import_optional
from dicomtorch.viewer.answer import Answer
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.guard import Application, Guard

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_THREADS = 6  # that answer at once


def static(name: str) -> str:
    """The text of a static file."""
    return files("dicomtorch.viewer").joinpath("static", name).read_text(encoding="utf-8")


def make_app(content: Content, hosts: Iterable[str], token: str) -> Application:
    """The application, guarded.

    Args:
        content: What it shows.
        hosts: Names with ports that it is known by.
        token: What opens it.

    Raises:
        MissingDependencyError: Starlette is not installed.
    """
    responses: Any = import_optional("starlette.responses", "viewer")
    routing: Any = import_optional("starlette.routing", "viewer")
    application: Any = import_optional("starlette.applications", "viewer").Starlette
    anyio: Any = import_optional("anyio", "viewer")
    limiter: list[Any] = []

    async def ask(request: Request) -> Response:
        if not limiter:
            limiter.append(anyio.CapacityLimiter(_THREADS))
        query = dict(request.query_params)
        found: Answer = await anyio.to_thread.run_sync(
            content.answer, request.path_params["path"], query, limiter=limiter[0]
        )
        return _response(responses.Response, found, query.get("encoding") == "deflate")

    def page(name: str, kind: str) -> Any:
        text = static(name)

        async def give(_: Request) -> Response:
            return responses.Response(text, media_type=kind)  # type: ignore[no-any-return]

        return give

    routes = [routing.Route("/api/{path:path}", ask, methods=["GET"])]
    for path, (name, kind) in _STATIC.items():
        routes.append(routing.Route(path, page(name, kind), methods=["GET"]))
    made = application(routes=routes)
    made.router.redirect_slashes = False
    return Guard(made, hosts, token)


def _response(make: Any, found: Answer, deflates: bool) -> Response:
    if found.data is None:
        # A frame that cannot be read is an answer: browsers log other statuses as faults of the page.
        status = 200 if found.status == 422 else found.status
        made: Response = make(found.json, status, media_type="application/json")
        return made
    data = bytes(found.data)
    headers = {"X-Info": found.json}
    if deflates:
        data, headers["X-Encoding"] = packed(data, str(found.info["dtype"])), "planes"
    packet: Response = make(
        data, found.status, headers=headers, media_type="application/octet-stream"
    )
    return packet


def packed(data: bytes, dtype: str) -> bytes:
    """Deflated byte planes, for slow lines: all first bytes of the values, then all second ones, and so on."""
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(-1, size).T
    return zlib.compress(planes.tobytes(), 1)
