"""Tensors in place, against safetensors itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import load, save

from fl_ppseg.setr.tensor_file import tensors_in
from fl_ppseg.system.errors import InputError

TYPES = st.sampled_from(["?", "u1", "i2", "<f2", "<f4", "<f8", "<i8", "<u4", "<u8"])
ARRAYS = TYPES.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_side=4, min_side=0))
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), ARRAYS))
def test_tensors_are_those_that_safetensors_reads(arrays: dict[str, np.ndarray]) -> None:
    arrays.pop("__metadata__", None)
    content = save(arrays)
    found, expected = tensors_in(memoryview(content), "bytes"), load(content)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape)
        assert value.tobytes() == expected[name].tobytes()


def test_tensors_share_the_memory_of_the_bytes_and_cannot_be_changed() -> None:
    content = save({"w": np.ones(1000, np.float32)})
    (value,) = tensors_in(memoryview(content), "bytes").values()
    assert np.shares_memory(value, np.frombuffer(content, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        value[0] = 2


@pytest.mark.parametrize("cut", [0, 7, 8, 30, -1])
def test_bytes_that_are_cut_are_refused(cut: int) -> None:
    content = save({"w": np.ones(3, np.float32)})
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        tensors_in(memoryview(content)[:cut], "bytes")
