"""Bytes as an array of Flower's, whose data are a file of numpy's: made and read with no copy more.

Flower's own way, `Array(ndarray)` and `Array.numpy()`, holds two copies of the bytes at a time
beside those that there are.
"""

from io import BytesIO
from typing import Final

import numpy as np
from flwr.app import Array
from numpy.lib import format as numpy_format

_NUMPY: Final = "numpy.ndarray"
"""What Flower calls this form (`Array.stype`)."""


def byte_array(content: bytes) -> Array:
    """An (n,) uint8 array of n bytes; the same as of `Array(numpy.frombuffer(content, "u1"))`."""
    file, shape = BytesIO(), (len(content),)
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    numpy_format.write_array_header_1_0(file, about)
    return Array("uint8", shape, _NUMPY, file.getvalue() + content)


def content_of(array: Array) -> memoryview:
    """The bytes of an (n,) uint8 array, in its memory.

    Raises:
        ValueError: It is not one, or not of the length that it says; numpy may raise other kinds.
    """
    file = BytesIO(array.data)  # shares it
    if array.stype != _NUMPY or numpy_format.read_magic(file) != (1, 0):
        raise ValueError("expected an array in numpy's form")
    shape, _, dtype = numpy_format.read_array_header_1_0(file)
    content = memoryview(array.data)[file.tell() :]
    if shape != (len(content),) or dtype != np.dtype(np.uint8):
        raise ValueError("expected as many bytes as its header says")
    return content
