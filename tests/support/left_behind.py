"""What tests of one process share and one could leave changed for those after it."""

from __future__ import annotations

import logging
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_logger = logging.getLogger("dicomtorch")


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Random generators begin anew, and all is afterwards as it was: these, the package's log and the environment.

    A page of the documentation quiets the log, for one, and its code runs in a test.
    """
    torch = sys.modules.get("torch")  # a test that does not use it must not pay for its import
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state() if torch else None
    random.seed(0)
    np.random.seed(0)
    if torch:
        torch.manual_seed(0)
    log = _logger.level, _logger.propagate, _logger.disabled, _logger.handlers[:]
    environment = dict(os.environ)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if torch:
            torch.set_rng_state(torch_state)
        level, _logger.propagate, _logger.disabled, _logger.handlers[:] = log
        _logger.setLevel(level)
        for name in os.environ.keys() - environment.keys() - {"PYTEST_CURRENT_TEST"}:
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value and name != "PYTEST_CURRENT_TEST":
                os.environ[name] = value
