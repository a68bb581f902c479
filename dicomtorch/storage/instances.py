"""Whole instances of a DICOMweb server (WADO-RS, PS3.18 section 10.4): objects of contours or text, without frames.

What has a SOP Instance UID does not change, but a server may write it anew for each answer: where a scan kept places in
it, the bytes are compared with those that were scanned.
"""

from __future__ import annotations

import zlib
from typing import Final

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage.base import Identity
from dicomtorch.storage.kept_bytes import KeptBytes
from dicomtorch.storage.members import Inflated
from dicomtorch.storage.multipart import DamagedAnswerError, media_type, split
from dicomtorch.storage.web import StatusError, WebAnswer, client_for, real_url
from dicomtorch.storage.words import REFRESH

_WHOLE: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_ALONE: Final = "application/dicom"
_kept: Final = KeptBytes()


def instance_of(root: bytes, path: bytes) -> bytes:
    """The DICOM file of an instance, in one request; the last ones are kept.

    Args:
        root: Address of the server.
        path: Of the instance, below it.

    Raises:
        StaleIndexError: It is gone.
        StorageError: It was not given.
    """
    return _kept.made((root, path), lambda: _asked_for(root, path))


def _asked_for(root: bytes, path: bytes) -> bytes:
    client = client_for(root)
    try:
        url = f"{real_url(root, client.settings)}/{path.decode()}"
        return client.read(url, _WHOLE, _file_in)
    except StatusError as error:
        if error.status in (404, 410):
            raise StaleIndexError(
                f"the server has no such instance ({error.status}) since it was indexed; {REFRESH}"
            ) from None
        raise StorageError(*error.args) from error


def _file_in(answer: WebAnswer) -> bytes:
    """The one file of an answer."""
    if media_type(answer.content_type) == _ALONE:
        return answer.data
    parts = split(answer.content_type, answer.data)
    if len(parts) != 1:
        raise DamagedAnswerError(f"the server gave {len(parts)} instances where one was asked for")
    return bytes(parts[0].data)


def identity_of_bytes(data: bytes) -> Identity:
    """What tells the bytes of an instance from others."""
    return Identity(len(data), 0, 0, f"crc32 {zlib.crc32(data):08x}")


def open_instance(root: bytes, path: bytes, identity: Identity) -> Inflated:
    """An instance as an object that begins with the first byte of its file.

    Args:
        root: Address of the server.
        path: Of the instance, below it.
        identity: That it must have, if its size is known.

    Raises:
        StaleIndexError: It is gone, or its bytes are others by now.
        StorageError: It was not given.
    """
    data = instance_of(root, path)
    found = identity_of_bytes(data)
    if identity.size >= 0 and found != identity:
        raise StaleIndexError(
            f"the server gives other bytes of the instance than those that were indexed ({len(data)}, then "
            f"{identity.size}); scan again with another cache_dir=, or export the object as a file"
        )
    return Inflated(data, found)
