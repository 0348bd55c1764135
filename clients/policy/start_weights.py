"""The owner's weights of round 0, in a file that its node only reads.

    <node folder>/start/<digest>/weights.safetensors

`clients.policy.trust_region` compares the weights of requests with them: all trained tensors, no
statistics of batch normalisation. The folder is named by the first 32 hex digits of the file's
SHA-256, which is checked when the file is read, once per process.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from clients.policy.owned_file import read_owned_bytes
from fl_ppseg.federation.message_fields import MAX_ARRAY_BYTES
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays, hash_of
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, write_atomically

START: Final = "start"
"""Name of the folder of start weights, in a node folder or a simulation's folder."""
WEIGHTS: Final = "weights.safetensors"
_DIGITS: Final = 32


def packed_start(weights: Mapping[str, np.ndarray]) -> bytes:
    """The file's content: the same bytes for the same weights.

    Args:
        weights: Of a model of round 0, with or without statistics.
    """
    trained = {n: np.ascontiguousarray(weights[n]) for n in sorted(weights) if not is_buffer(n)}
    return safetensors.numpy.save(trained)


def start_digest(content: bytes) -> str:
    """The name of the folder of a file with this content."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def write_start(place: Path, weights: Mapping[str, np.ndarray]) -> Path:
    """Write the start weights for the nodes of this machine; existing ones are kept.

    Args:
        place: A folder that only its owner can write.
        weights: As in `packed_start`.

    Returns:
        Their folder in it.
    """
    content = packed_start(weights)
    folder = make_private_folder(place / start_digest(content))
    if not (folder / WEIGHTS).exists():
        write_atomically(folder / WEIGHTS, content, mode=0o600)
    return folder


@lru_cache(maxsize=16)
def start_hash(folder: Path) -> str:
    """`hash_of` the weights in a folder; raises as `read_start`."""
    return hash_of(read_start(folder))


@lru_cache(maxsize=4)
def read_start(folder: Path) -> Arrays:
    """Read the weights in a folder, as read-only arrays.

    Raises:
        InputError: The file is missing, a link, another user's, open to others, does not match the
            name of its folder, or holds no weights.
    """
    path = folder / WEIGHTS
    content = read_owned_bytes(path, MAX_ARRAY_BYTES, "file of start weights")
    if start_digest(content) != folder.name:
        raise InputError(f"{path}: damaged start weights (their hash differs); run encrypt again")
    try:
        arrays = safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: unreadable start weights ({error}); run encrypt again") from None
    for value in arrays.values():
        value.flags.writeable = False
    return arrays
