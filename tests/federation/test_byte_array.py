"""Bytes as Flower's array, against Flower's own way."""

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.federation.byte_array import byte_array, content_of


@given(st.binary(max_size=300))
def test_an_array_of_bytes_is_the_one_that_flower_makes(content: bytes) -> None:
    made = byte_array(content)
    assert made == Array(np.frombuffer(content, np.uint8))
    assert made.numpy().tobytes() == content
    assert content_of(made) == content


def test_content_is_not_copied() -> None:
    made = byte_array(bytes(1000))
    content = np.frombuffer(content_of(made), np.uint8)
    assert np.shares_memory(content, np.frombuffer(made.data, np.uint8))


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros(3)),
        Array(np.zeros((3, 1), np.uint8)),
        Array("uint8", (3,), "numpy.ndarray", byte_array(b"abc").data + b"d"),
        Array("uint8", (3,), "numpy.ndarray", byte_array(b"abc").data[:-1]),
        Array("uint8", (3,), "torch", byte_array(b"abc").data),
    ],
    ids=["float64", "two axes", "longer", "cut", "another form"],
)
def test_other_arrays_are_refused(array: Array) -> None:
    with pytest.raises(ValueError, match="expected"):
        content_of(array)
