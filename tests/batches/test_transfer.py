"""Devices that are not to be had are refused when the loader is made."""

from __future__ import annotations

import pytest
import torch

from dicomtorch.batches.loader import FrameLoader
from dicomtorch.batches.transfer import device_of
from dicomtorch.errors import OptionError


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_a_machine_without_a_gpu(device: torch.device | str) -> None:
    with pytest.raises(OptionError, match=r"device='cuda.*finds no CUDA device here. Leave device"):
        FrameLoader([1, 2, 3], 2, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(OptionError, match="device='cuda:99'"):
        FrameLoader([1, 2, 3], 2, device="cuda:99")


def test_words_that_are_no_device() -> None:
    with pytest.raises(OptionError, match="device='gpu'"):
        FrameLoader([1, 2, 3], 2, device="gpu")
    assert device_of(None) is None
    assert device_of("cpu") == torch.device("cpu")
