"""What several tests of the scanner share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scanned import mixed_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of every kind of file that a scan meets."""
    return mixed_tree(tmp_path / "tree")
