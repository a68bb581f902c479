"""Whatever a test changes of what all share, the next one does not meet."""

from __future__ import annotations

import logging
import os
import random

import numpy as np
import torch

from tests.docs.test_code import BLOCK, ROOT
from tests.support.left_behind import nothing_left_behind

LOGGER = logging.getLogger("dicomtorch")


def test_code_of_the_page_on_privacy_does_not_quiet_the_tests_after_it() -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "how-to" / "privacy.md").read_text(encoding="utf-8"))
    quiet = [block for block in blocks if "setLevel" in block]
    with nothing_left_behind():
        for block in quiet:
            line = next(line for line in block.splitlines() if "setLevel" in line)
            exec(line, {"logging": logging})
        assert not LOGGER.isEnabledFor(logging.WARNING)
    assert LOGGER.isEnabledFor(logging.WARNING)


def test_the_log_the_environment_and_random_numbers_are_as_before() -> None:
    os.environ["DICOMTORCH_TEST_KEPT"] = "1"
    before = dict(os.environ)
    log = LOGGER.level, LOGGER.propagate, LOGGER.disabled, LOGGER.handlers[:]
    numbers = []
    for _ in range(2):
        with nothing_left_behind():
            numbers.append((random.random(), np.random.rand(), torch.rand(1).item()))
            os.environ["DICOMTORCH_TEST_NEW"] = "1"
            del os.environ["DICOMTORCH_TEST_KEPT"]
            LOGGER.propagate, LOGGER.disabled = False, True
            LOGGER.addHandler(logging.NullHandler())
        assert dict(os.environ) == before
        assert (LOGGER.level, LOGGER.propagate, LOGGER.disabled, LOGGER.handlers) == log
    assert numbers[0] == numbers[1]
