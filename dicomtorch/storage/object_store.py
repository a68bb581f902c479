"""Objects in S3, Google Cloud Storage, Azure and behind plain HTTP, read with obstore.

Its messages have addresses, and addresses may have signatures: of an error of its own no more is told than what kind it
is and the number that the server answered with. The same holds for the options, which may be keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import OptionError, StaleIndexError, StorageError, import_optional, printable
from dicomtorch.storage.address import HTTP, parse
from dicomtorch.storage.base import Identity
from dicomtorch.storage.client import Answer, Settings, use_connections
from dicomtorch.storage.words import REFRESH, changed, forbidden, gone

_OF_FSSPEC: Final = {
    "anon": "skip_signature",
    "key": "access_key_id",
    "secret": "secret_access_key",
    "endpoint_url": "endpoint",
    "region_name": "region",
}
"""Names that the same settings of S3 have in s3fs, which many have in their scripts."""
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Where the environment names an endpoint of S3."""
_STATUS: Final = re.compile(r"status code: (\d{3})")
_KINDS: Final = (
    ("TimedOut", "the server did not answer in time"),
    ("kind: Timeout", "the server did not answer in time"),
    ("UnexpectedRange", "fewer bytes came than were asked for"),
    ("Connection refused", "the connection was refused"),
    ("dns error", "the name of the host is not known"),
    ("certificate", "the certificate of the server was not accepted"),
    ("Connection reset", "the connection was reset"),
    ("error decoding response body", "the answer broke off"),
    ("builder error", "the endpoint has no https://; client_options={'allow_http': True} takes it"),
    ("error sending request", "there is no connection to the server"),
)


class ObjectStoreClient:
    """Asks one bucket or host.

    Args:
        base: As in `s3://bucket` or `https://host`.
        settings: `options` are those of obstore, by their names there or in s3fs.

    Raises:
        MissingDependencyError: obstore is not installed.
    """

    def __init__(self, base: str, settings: Settings) -> None:
        self._obstore: Any = import_optional("obstore", "remote")
        self._errors: Any = import_optional("obstore.exceptions", "remote")
        self.base = base
        self.settings = settings
        self._prefix = f"{base}/".encode("utf-8", "surrogateescape")
        self._store: Any = None
        self._lock = ForkedLock()

    @property
    def _open(self) -> Any:
        use_connections()  # each time: a store that a fork copied hangs
        store = self._store
        if store is None:
            with self._lock:
                store = self._store
                if store is None:
                    store = self._store = self._make()
        return store

    def _make(self) -> Any:
        module: Any = import_optional("obstore.store", "remote")
        given = dict(self.settings.options)
        client = {
            "timeout": f"{self.settings.timeout}s",
            "connect_timeout": f"{self.settings.connect_timeout}s",
            **given.pop("client_options", {}),
        }
        retry = {
            "max_retries": self.settings.max_retries,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
            **given.pop("retry_config", {}),
        }
        provider = given.pop("credential_provider", None)
        more = {} if provider is None else {"credential_provider": provider}
        scheme, _, place = self.base.partition("://")
        config = _config(given) if scheme not in HTTP else {}
        if scheme in HTTP and given:
            raise OptionError(
                f"storage_options has {', '.join(map(repr, sorted(given)))}, which HTTP does not have; headers go "
                "into client_options={'default_headers': {...}}"
            )
        if scheme == "http" or _endpoint(scheme, config).startswith("http://"):
            client.setdefault("allow_http", True)
        base = f"{scheme.replace('gcs', 'gs')}://{place}"
        try:
            if scheme in HTTP:
                return module.HTTPStore(base, client_options=client, retry_config=retry)
            return module.from_url(
                base, config=config, client_options=client, retry_config=retry, **more
            )
        except self._errors.BaseError as error:
            names = ", ".join(sorted(config)) or "none"
            raise OptionError(
                f"{printable(self.base)} cannot be opened with these storage_options (names given: {names}): "
                f"{type(error).__name__}; they are named as in obstore.store, or as in s3fs (anon, key, secret)"
            ) from None

    def _key(self, name: bytes) -> str:
        """The key of an object of this place; most are the end of their names."""
        if name.startswith(self._prefix) and b"%" not in name:
            return name[len(self._prefix) :].decode("utf-8", "surrogateescape")
        return parse(name).key

    def get(self, name: bytes, offset: int, length: int, identity: Identity | None) -> Answer:
        """A range of an object; see `Client`."""
        key = self._key(name)
        options: dict[str, Any] = {"range": (offset, offset + length)}
        if identity is not None and identity.version.startswith('"'):
            options["if_match"] = identity.version
        for left in reversed(range(self.settings.max_retries + 1)):
            try:
                result = self._obstore.get(self._open, key, options=options)
                data = memoryview(result.bytes())
                meta, (start, stop) = result.meta, result.range
                found = _known(meta, identity) or _identity(meta)
            except Exception as error:
                told = self._told(error, identity)
                if left and self._may_pass(error):
                    continue
                raise told from None
            if (
                found is not identity
                and identity is not None
                and identity.size >= 0
                and not found.matches(identity)
            ):
                raise StaleIndexError(changed(identity, found))
            expected = max(0, min(length, found.size - offset))
            if start == offset and len(data) == expected == stop - start:
                return Answer(data, found)
        raise StorageError(
            f"bytes {offset} to {offset + expected} were asked for, and {len(data)} bytes from {start} on came"
        )

    def head(self, name: bytes) -> Identity:
        """What an object is; see `Client`."""
        try:
            return _identity(self._obstore.head(self._open, self._key(name)))
        except Exception as error:
            raise self._told(error, None) from None

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Identity]]:
        """The objects below a prefix; see `Client`."""
        address = parse(prefix)
        base = f"{address.base}/".encode("utf-8", "surrogateescape")
        try:
            for chunk in self._obstore.list(self._open, address.key.rstrip("/") or None):
                for meta in chunk:
                    if meta["size"] or not meta["path"].endswith("/"):
                        yield (
                            base + meta["path"].encode("utf-8", "surrogateescape"),
                            _identity(meta),
                        )
        except Exception as error:
            raise self._told(error, None) from None

    def _may_pass(self, error: Exception) -> bool:
        """Whether asking again may help, where obstore itself does not."""
        status = _STATUS.search(str(error))
        if isinstance(error, self._errors.NotSupportedError):  # a proxy that left out the range
            return True
        was_again = "max_retries" in str(error)  # by obstore itself
        return type(error) is self._errors.GenericError and status is None and not was_again

    def _told(self, error: Exception, identity: Identity | None) -> Exception:
        """The error that leaves the package."""
        if isinstance(error, OptionError | StorageError | StaleIndexError | MemoryError):
            return error
        if isinstance(error, FileNotFoundError):
            return gone(identity)
        if isinstance(error, self._errors.PreconditionError) and identity is not None:
            return StaleIndexError(f"the object changed since it was indexed; {REFRESH}")
        text = str(error)
        found = _STATUS.search(text)
        if isinstance(error, self._errors.NotSupportedError):
            return StorageError(
                "the server gave the whole object, or none of it, where a range was asked for; a server or proxy that "
                "knows Range (RFC 9110) is needed"
            )
        denied = (self._errors.PermissionDeniedError, self._errors.UnauthenticatedError)
        if isinstance(error, denied) or (found and found[1] in ("401", "403")):
            return forbidden(found[1] if found else "")
        if found and found[1] == "416":
            return StaleIndexError(f"the object ends before the range that was indexed; {REFRESH}")
        if found:
            return StorageError(f"the server answered {found[1]} in every of several tries")
        kind = next((words for sign, words in _KINDS if sign in text), type(error).__name__)
        return StorageError(f"it was not given: {kind}")


def _config(options: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in options.items():
        if name == "client_kwargs" and isinstance(value, Mapping):
            config |= _config(value)
        elif value is not None:
            config[_OF_FSSPEC.get(name, name)] = value
    return config


def _endpoint(scheme: str, config: Mapping[str, Any]) -> str:
    """Where a bucket is, as far as options or environment say so."""
    named = [os.environ.get(name) for name in _ENDPOINTS] if scheme == "s3" else []
    return next((str(one) for one in (config.get("endpoint"), *named) if one), "")


def _known(meta: Mapping[str, Any], identity: Identity | None) -> Identity | None:
    """What is known of an object, if obstore says just that, as it nearly always does; else `None`."""
    if identity is None or not identity.version or identity.mtime_ns:
        return None
    is_same = meta["e_tag"] == identity.version and meta["size"] == identity.size
    return identity if is_same else None


def _identity(meta: Mapping[str, Any]) -> Identity:
    """The identity of an object, from what obstore says of it."""
    version = meta.get("e_tag") or ""
    if not version:
        changed_at: datetime | None = meta.get("last_modified")
        if changed_at is not None and changed_at.timestamp() > 0:
            version = f"modified {changed_at:%Y-%m-%dT%H:%M:%S}"
    return Identity(int(meta["size"]), 0, 0, version)
