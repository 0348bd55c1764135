"""Arrays as types: weights by name, and images. Of other packages it imports numpy alone."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, np.ndarray]
"""Tensor of a state dict -> its values: what updates, messages and checkpoints are made of."""
Pixels = NDArray[np.uint8]
"""Values of images, or of label maps, as files hold them."""


def array_bytes(arrays: Mapping[str, np.ndarray]) -> int:
    """Bytes of the values."""
    return sum(value.nbytes for value in arrays.values())


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of weights."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
