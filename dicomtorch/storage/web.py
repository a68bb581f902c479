"""Answers of a server over HTTP: bounded, checked, asked for again where that can help.

Headers, which may be keys, are in no message, and no redirection takes them to another server.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import OptionError, StorageError, import_optional
from dicomtorch.storage.multipart import (
    DamagedAnswerError,
    Part,
    media_type,
    parameter,
    shown_type,
    split,
)
from dicomtorch.storage.tally import Tally

Read = TypeVar("Read")

FRAMES: Final = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
"""Frames as they are encoded on the server (PS3.18 section 8.7.3)."""
SCHEMES: Final = {"dicomweb+https": "https", "dicomweb+http": "http"}
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
"""Status codes that say to come again; 500 is tried twice, because many servers answer it to what they cannot do."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PIECE: Final = 1 << 20
_LONGEST_WAIT: Final = 10.0  # seconds between two tries
MOST_DAMAGED: Final = 3
"""Times that a damaged answer is asked for again: a server may give no other."""


_DEFAULTS: Final = {
    "": "1.2.840.10008.1.2.1",
    "application/octet-stream": "1.2.840.10008.1.2.1",
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/x-dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/x-jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
}
"""Transfer syntaxes of media types that do not say theirs (PS3.18 section 8.7.3)."""


def encoding_of(content_type: str) -> str:
    """The transfer syntax that the media type of a part says, else the default of that type.

    Source: PS3.18 section 8.7.3.

    Raises:
        StorageError: It says none and has none, as a picture or a page has.
    """
    said = parameter(content_type, "transfer-syntax")
    kind = media_type(content_type)
    if not said and kind not in _DEFAULTS:
        raise StorageError(
            f"the server gave {shown_type(content_type)} and no frame as it is encoded; export the series as files and "
            "read these"
        )
    return said or _DEFAULTS[kind]


def frames_in(answer: WebAnswer) -> list[Part]:
    """The frames of an answer: its parts, or the one that it is.

    Raises:
        DamagedAnswerError: Its parts are cut off or contradict themselves.
        StorageError: It is neither.
    """
    kind = media_type(answer.content_type)
    if kind and kind in _DEFAULTS:
        return [Part(answer.content_type, memoryview(answer.data))]
    return split(answer.content_type, answer.data)


class StatusError(StorageError):
    """The server refused; built from one string as all errors are. It does not leave the package.

    Attributes:
        status: Of the answer; 0: there was none.
    """

    status = 0

    @classmethod
    def of(cls, status: int, message: str) -> StatusError:
        """With the status of an answer."""
        error = cls(message)
        error.status = status
        return error


class WebAnswer(NamedTuple):
    """What a server gave.

    Attributes:
        status: As 200, or 204 for nothing.
        content_type: As sent, "" if absent.
        data: The body.
    """

    status: int
    content_type: str
    data: bytes


@dataclass(frozen=True)
class WebSettings:
    """How a server is asked: `storage_options` of `dicomweb+https://` addresses.

    Attributes:
        headers: Sent with each request, as `{"Authorization": "Bearer ..."}`.
        io_threads: Requests at once, 1 to 64.
        frames_per_request: Frames of one instance that are asked for together, 1 to 1,000.
        prefetch_bytes: What may be held that was asked for ahead.
        range_cache: A folder for encoded frames as they came; `None`: none.
        range_cache_bytes: What they may take.
        timeout: Seconds that a server may keep silent.
        connect_timeout: Seconds until a connection is there.
        max_retries: How often what failed for no reason of the request is asked for again.
        most_bytes: Of one answer.
        ca_certs: A file of certificates that are trusted; `None`: those of the system.
        allow_http: Whether `dicomweb+http://` may lead off this machine, unencrypted.
        probe: "series": the transfer syntax of alike instances of a series is learnt from two of them; "instance": from
            each.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    io_threads: int = 8
    frames_per_request: int = 30
    prefetch_bytes: int = 256 << 20
    range_cache: str | None = None
    range_cache_bytes: int = 50_000_000_000
    timeout: float = 30.0
    connect_timeout: float = 5.0
    max_retries: int = 5
    most_bytes: int = 2 << 30
    ca_certs: str | None = None
    allow_http: bool = False
    probe: str = "series"

    @classmethod
    def of(cls, options: Mapping[str, Any] | None) -> WebSettings:
        """Checked.

        Raises:
            OptionError: One is unknown or out of its range; values are not in the message.
        """
        if options is not None and not isinstance(options, Mapping):
            raise OptionError(
                f"storage_options must be a mapping from names to values; got a {type(options).__name__}"
            )
        given = dict(options or {})
        known = {each.name for each in fields(cls)}
        if given.keys() - known:
            raise OptionError(
                f"storage_options of DICOMweb addresses are {', '.join(sorted(known))}; got "
                f"{', '.join(sorted(map(str, given.keys() - known)))}. Headers go into 'headers'"
            )
        headers = given.get("headers", {})
        if not isinstance(headers, Mapping) or not all(
            isinstance(part, str) and part.isascii() and part.isprintable()
            for item in headers.items()
            for part in item
        ):
            raise OptionError(
                "storage_options['headers'] must map names of headers to text of ASCII"
            )
        for name, low, high in (
            ("io_threads", 1, 64),
            ("frames_per_request", 1, 1000),
            ("max_retries", 0, 100),
        ):
            value = given.get(name, low)
            if not isinstance(value, int) or not low <= value <= high:
                raise OptionError(
                    f"storage_options[{name!r}] must be a whole number of {low} to {high}"
                )
        if given.get("range_cache") is not None:
            given["range_cache"] = os.path.abspath(
                os.path.expanduser(os.fspath(given["range_cache"]))
            )
        numbers = ("timeout", "connect_timeout", "prefetch_bytes", "most_bytes")
        for name in (*numbers, "range_cache_bytes"):
            value = given.get(name, 1)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise OptionError(f"storage_options[{name!r}] must be a number above 0")
        if given.get("probe", "series") not in ("series", "instance"):
            raise OptionError("storage_options['probe'] must be 'series' or 'instance'")
        return cls(**given)


class WebClient:
    """Asks a server; used by several threads, and by forked processes, each with connections of its own.

    Args:
        settings: How.
    """

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        self._tally = Tally()
        self._pool: tuple[int, Any] = (0, None)
        import_optional("urllib3", "remote")

    @property
    def requests(self) -> int:
        """Made in this process so far, repeats not counted."""
        return self._tally.requests

    @property
    def bytes_read(self) -> int:
        """What came."""
        return self._tally.size

    def get(self, url: str, accept: str) -> WebAnswer:
        """The answer to GET; see `read`."""
        return self.read(url, accept, lambda answer: answer)

    def read(
        self,
        url: str,
        accept: str,
        of: Callable[[WebAnswer], Read],
        damaged: int = MOST_DAMAGED,
    ) -> Read:
        """What is read of the answer to GET.

        Args:
            url: `http` or `https`.
            accept: Media types.
            of: Reads an answer; where that is damaged, it is asked for again.
            damaged: How often, within what the settings say.

        Raises:
            StatusError: The server refused.
            StorageError: There is no answer, it is damaged, or too large.
        """
        problem = StorageError("nothing was asked for")
        for attempt in range(self.settings.max_retries + 1):
            if attempt:
                time.sleep(random.uniform(0, min(0.1 * 2**attempt, _LONGEST_WAIT)))
            try:
                return of(self._once(url, accept))
            except StatusError as error:
                if error.status not in _AGAIN and not (error.status == 500 and not attempt):
                    raise
                problem = error
            except _Unanswered as error:
                problem = StatusError(str(error))
            except DamagedAnswerError as error:
                problem = StorageError(*error.args)
                if attempt >= damaged:
                    break
        raise problem

    def _once(self, url: str, accept: str) -> WebAnswer:
        import urllib3

        headers = {**self.settings.headers, "Accept": accept, "Accept-Encoding": "identity"}
        try:
            response = self._manager().request(
                "GET", url, headers=headers, preload_content=False, redirect=False, retries=False
            )
            try:
                if response.status >= 300:
                    response.close()  # with its body unread, the connection is good for nothing
                    raise _refused(response.status)
                data = self._body(response)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise _Unanswered(self._no_answer(error)) from None
        self._tally.add(1, len(data))
        return WebAnswer(response.status, response.headers.get("Content-Type", ""), data)

    def _no_answer(self, error: Exception) -> str:
        """What happened, without the text of an error, which has the address."""
        from urllib3 import exceptions

        name = type(error).__name__
        if isinstance(error, exceptions.NameResolutionError):
            return f"no server of this name was found ({name})"
        if isinstance(error, exceptions.SSLError):
            return (
                f"no encrypted connection could be made ({name}): it speaks no TLS, or its certificate is not trusted "
                "(storage_options={'ca_certs': file})"
            )
        if isinstance(error, exceptions.NewConnectionError):
            return f"nothing answers at this host and port ({name})"
        if isinstance(error, exceptions.ReadTimeoutError):
            return f"the server did not answer within {self.settings.timeout:g} s ({name})"
        return f"the server did not answer in whole ({name})"

    def _body(self, response: Any) -> bytes:
        most = self.settings.most_bytes
        parts: list[bytes] = []
        size = 0
        length = response.headers.get("Content-Length") or ""
        stated = int(length) if length.isascii() and length.isdigit() else 0
        while max(size, stated) <= most and (piece := response.read(_PIECE)):
            parts.append(piece)
            size += len(piece)
        if max(size, stated) > most:
            response.close()
            raise StorageError(
                f"the answer has more than {most} bytes, the most that storage_options['most_bytes'] allows"
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _manager(self) -> Any:
        import urllib3

        process, pool = self._pool
        if process != os.getpid():
            settings = self.settings
            pool = urllib3.PoolManager(
                maxsize=settings.io_threads,
                timeout=urllib3.Timeout(connect=settings.connect_timeout, read=settings.timeout),
                ca_certs=settings.ca_certs,
            )
            self._pool = (os.getpid(), pool)
        return pool

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["settings"])  # type: ignore[misc]


class _Unanswered(Exception):
    """May be asked again."""


def _refused(status: int) -> StatusError:
    if status in (401, 403):
        what = (
            f"the server answered {status}: credentials are missing, wrong or expired; give them in "
            "storage_options={'headers': {'Authorization': ...}}, or --storage-option headers.Authorization=env:NAME"
        )
    elif status < 400:
        what = f"the server answered {status} and names another address; give that one"
    else:
        what = f"the server answered {status}"
    return StatusError.of(status, what)


def is_web(name: bytes) -> bool:
    """Whether an address is of a DICOMweb server."""
    return name.partition(b"://")[0].lower() in {scheme.encode() for scheme in SCHEMES}


def real_url(address: bytes, settings: WebSettings) -> str:
    """The `http` or `https` address of a DICOMweb one, without a slash at its end.

    Raises:
        OptionError: It has a user or a query, or leads off this machine unencrypted.
    """
    scheme, _, rest = address.decode("utf-8", "surrogateescape").partition("://")
    url = f"{SCHEMES[scheme.lower()]}://{rest}".rstrip("/")
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise OptionError(
            "the address has a user, a password or a query, which would be kept with the index; give headers in "
            "storage_options"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not settings.allow_http:
        raise OptionError(
            "dicomweb+http:// is unencrypted and for this machine only; take dicomweb+https://, or give "
            "storage_options={'allow_http': True}"
        )
    return url


_of_place: dict[str, WebClient] = {}
_lock: Final = ForkedLock()


def client_for(address: bytes, options: Mapping[str, Any] | None = None) -> WebClient:
    """The client of the server of an address; without options with those that were given last in this process."""
    place = "/".join(address.decode("utf-8", "surrogateescape").split("/", 3)[:3])
    with _lock:
        known = _of_place.get(place)
        if known is None or options is not None:
            known = _of_place[place] = WebClient(WebSettings.of(options))
        return known


def remember_client(address: bytes, client: WebClient) -> None:
    """Takes a client that came from another process as that of its server, if there is none yet."""
    place = "/".join(address.decode("utf-8", "surrogateescape").split("/", 3)[:3])
    _of_place.setdefault(place, client)
