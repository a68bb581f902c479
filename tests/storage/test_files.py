"""What tells a file from another one, as far as its file system knows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicomtorch.storage import files
from dicomtorch.storage.base import Identity
from dicomtorch.storage.files import identity_of, mount_is_stable

MOUNTS = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
30 22 0:44 / /mnt/share rw shared:5 - cifs //server/share rw
31 22 0:45 / /mnt/rclone rw - fuse.rclone remote: rw
32 22 0:46 /export /mnt/nfs rw master:1 - nfs4 server:/export rw
33 22 8:17 / /mnt/stick rw - vfat /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("device", "stable"),
    [
        ("254:1", True),
        ("0:44", False),
        ("0:45", False),
        ("0:46", True),
        ("8:17", False),
        ("9:9", True),
    ],
)
def test_mounts_with_stable_inodes(device: str, stable: bool) -> None:
    assert mount_is_stable(MOUNTS.splitlines(), device) is stable


def test_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    info = os.stat(tmp_path / "file")
    expected = Identity(3, info.st_mtime_ns, info.st_ino)
    monkeypatch.setattr(files, "has_stable_inodes", lambda device: device == info.st_dev)
    assert identity_of(info) == expected
    monkeypatch.setattr(files, "has_stable_inodes", lambda _: False)
    assert identity_of(info) == expected._replace(inode=0)


def test_identities_match_where_an_inode_is_not_known() -> None:
    one = Identity(1, 2, 3)
    assert one.matches(one)
    assert one.matches(Identity(1, 2, 0))
    assert Identity(1, 2, 0).matches(one)
    for other in (Identity(1, 2, 4), Identity(0, 2, 3), Identity(1, 0, 0)):
        assert not one.matches(other)
