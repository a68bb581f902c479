"""torchvision for the scripts that ask for it, which `make test-services` puts into a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.requirements import require


def torchvision_beside(scratch: Path) -> list[Path]:
    """Folders for the path of a script that uses torchvision; skips where there is none.

    It lies apart, so that libraries that use it where it can be imported are not disturbed. PyPI has it for CUDA:
    beside torch for the CPU its compiled operators do not load, and its import stops at two of them. They are declared
    here; no transform uses them.
    """
    own = Path(sys.prefix) / "torchvision"
    if not own.is_dir():
        require("torchvision")
        return []
    folder = scratch / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DECLARED, encoding="utf-8")
    return [folder, own]


DECLARED = """
import torch
if torch.version.cuda is None:
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
