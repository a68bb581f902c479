"""What is said of remote objects that are not as they should be; addresses and options are never in it."""

from __future__ import annotations

from typing import Final

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage.base import Identity

REFRESH: Final = "refresh the index (DicomFrames(root), or scan(root, index=old)) and start again"


def changed(expected: Identity, found: Identity) -> str:
    """That an object is another one than was indexed."""
    if expected.size != found.size:
        return (
            f"the object changed since it was indexed: it had {expected.size} bytes, now it has {found.size}; "
            f"{REFRESH}"
        )
    return (
        f"the object changed since it was indexed: it has {found.size} bytes as before and another version; "
        f"{REFRESH}"
    )


def gone(identity: Identity | None) -> StorageError | StaleIndexError:
    """That there is no such object."""
    if identity is None:
        return StorageError("there is no such object")
    return StaleIndexError(f"the object is gone since it was indexed; {REFRESH}")


def forbidden(status: str) -> StorageError:
    """That this user may not read it."""
    answered = f" (the server answered {status})" if status else ""
    return StorageError(
        f"it may not be read{answered}: credentials are missing, wrong or expired; set them in the environment or in "
        "storage_options, or skip_signature=True for public data"
    )
