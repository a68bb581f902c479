"""Who may ask: the page that this server gave out, with its token, under the name that it was opened by.

A server on the loopback can be reached by every page of every browser of this machine (DNS rebinding, forged requests)
and by every other user of it. So the name and the port in `Host` must be ours, `Origin` and `Sec-Fetch-Site` must say
that our own page asks, and what concerns data needs the token, which is in no URL that is sent or logged.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-store"),  # pixels must not get into the disk cache of a browser
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)

_PRIVATE = "/api/"  # what needs the token
_PAGE = "/"


class Guard:
    """Lets through what the rules above allow, and adds headers to every answer.

    Args:
        application: Answers.
        hosts: Names with ports that `Host` may be, as in "127.0.0.1:8000".
        token: What `Authorization: Bearer` must say.
    """

    def __init__(self, application: Application, hosts: Iterable[str], token: str) -> None:
        self._application = application
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refused = self.refused(scope)

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        if refused is None:
            await self._application(scope, receive, guarded)
            return
        status, text = refused
        body = f"{text}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            *([(b"allow", b"GET, HEAD")] if status == 405 else []),
        ]
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        await guarded({"type": "http.response.body", "body": body})

    def refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason of a refusal; `None` for what may pass."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name.lower(), []).append(value)
        return (
            self._malformed(found)
            or self._misdirected(found)
            or _wrong_method(scope)
            or self._foreign(scope, found)
            or self._unknown(scope, found)
        )

    def _malformed(self, found: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        lengths = found.get(b"content-length", []) + found.get(b"transfer-encoding", [])
        if len(found.get(b"host", ())) != 1 or len(lengths) > 1:
            return 400, "one Host, and at most one length"
        return None

    def _misdirected(self, found: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        host = found[b"host"][0].decode("latin-1").lower()
        return None if host in self._hosts else (421, "this server has another name")

    def _foreign(self, scope: Scope, found: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        origins = [value.decode("latin-1").lower() for value in found.get(b"origin", ())]
        if any(origin not in self._origins for origin in origins):
            return 403, "another page asks"
        sites = set(found.get(b"sec-fetch-site", ()))
        if sites <= {b"same-origin", b"none"}:
            return None
        # The file that opens the browser is a page of another site; ours shows nothing without the token.
        opens = (
            scope["path"] == _PAGE
            and found.get(b"sec-fetch-mode") == [b"navigate"]
            and found.get(b"sec-fetch-dest") == [b"document"]
        )
        return None if opens else (403, "another page asks")

    def _unknown(self, scope: Scope, found: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        if not scope["path"].startswith(_PRIVATE):
            return None
        given = found.get(b"authorization", [b""])
        expected = b"Bearer " + self._token
        if len(given) == 1 and hmac.compare_digest(given[0], expected):
            return None
        return 401, "the token is missing or wrong: open the address that the program printed"


def _wrong_method(scope: Scope) -> tuple[int, str] | None:
    return None if scope["method"] in ("GET", "HEAD") else (405, "only GET and HEAD")
