"""Memory that decoders write to begins where none of them writes past the caches of the processor."""

from __future__ import annotations

import pytest

from dicomtorch.model.samples import new_samples


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4"])
@pytest.mark.parametrize("shape", [(256, 256, 3), (1, 1), (3, 5, 3), (0, 4), (2000, 1000)])
def test_arrays_begin_beyond_a_multiple_of_32_bytes(shape: tuple[int, ...], dtype: str):
    kept = [new_samples(shape, dtype) for _ in range(8)]
    for samples in kept:
        assert samples.shape == shape
        assert samples.dtype == dtype
        assert samples.flags.c_contiguous
        assert samples.flags.writeable
        assert samples.size == 0 or samples.ctypes.data % 32 == 16
    for k, samples in enumerate(kept):
        samples[...] = k
    assert all((samples == k).all() for k, samples in enumerate(kept))
