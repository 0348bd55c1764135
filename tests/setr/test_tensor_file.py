"""Tensors in place, against safetensors itself."""

import time

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


def file_of(header: str, content: bytes = b"") -> memoryview:
    text = header.encode()
    return memoryview(len(text).to_bytes(8, "little") + text + content)


ONE = '"dtype": "F32", "data_offsets": [0, 4], "shape": '


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f'{{"w": {{{ONE}[{",".join(["9" * 19] * 30_000)}]}}}}', "at most 64 axes"),
        (f'{{"w": {{{ONE}{{}}}}}}', "at most 64 axes"),
        (f'{{"\\ud800": {{{ONE}[1]}}}}', "surrogates not allowed"),
        ('{"\\ud800": {"dtype": "X"}}', "surrogates not allowed"),
        (f'{{"w": {{{ONE.replace("[0, 4]", "[0, 0]")}[0, {2**62}, 4]}}}}', "than memory"),
    ],
)
def test_headers_that_cost_time_or_are_no_text_are_refused(header: str, reason: str) -> None:
    """The product of many axes takes minutes, in which no other thread runs."""
    began = time.process_time()
    with pytest.raises(InputError, match=reason):
        tensors_in(file_of(header, bytes(4)), "bytes")
    assert time.process_time() - began < 1


def test_a_header_is_bounded_by_its_reader() -> None:
    content = memoryview(save({str(n): np.zeros(1) for n in range(100)}))
    assert len(tensors_in(content, "bytes", 10_000)) == 100
    with pytest.raises(InputError, match="a header of"):
        tensors_in(content, "bytes", 1_000)


@pytest.mark.parametrize("cut", [0, 7, 8, 30, -1])
def test_bytes_that_are_cut_are_refused(cut: int) -> None:
    content = save({"w": np.ones(3, np.float32)})
    with pytest.raises(InputError, match=r"not a \.safetensors file"):
        tensors_in(memoryview(content)[:cut], "bytes")
