"""The weights of round 0 as the owner has them, in a file that its node reads and nobody changes.

    <node folder>/start/<digest>/weights.safetensors

They are what `clients.policy.trust_region` measures the weights of requests by: all trained
tensors, no statistics of batch normalisation. The folder is named by the first 32 hex digits of the
file's SHA-256, and the file is held to its name when it is read, once a process.
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
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, write_atomically

START: Final = "start"
"""Folder of the start weights, in a node folder or a simulation's."""
WEIGHTS: Final = "weights.safetensors"
_DIGITS: Final = 32


def packed_start(weights: Mapping[str, np.ndarray]) -> bytes:
    """The file's content: the same bytes for the same weights.

    Args:
        weights: Of a model of round 0, statistics among them or not.
    """
    trained = {n: np.ascontiguousarray(weights[n]) for n in sorted(weights) if not is_buffer(n)}
    return safetensors.numpy.save(trained)


def start_digest(content: bytes) -> str:
    """What the folder of a file is called."""
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def write_start(place: Path, weights: Mapping[str, np.ndarray]) -> Path:
    """Write the weights that the nodes of this machine start from; those that are there are kept.

    Args:
        place: A folder that is its owner's alone.
        weights: As in `packed_start`.

    Returns:
        Their folder in it.
    """
    content = packed_start(weights)
    folder = make_private_folder(place / start_digest(content))
    if not (folder / WEIGHTS).exists():
        write_atomically(folder / WEIGHTS, content, mode=0o600)
    return folder


@lru_cache(maxsize=4)
def read_start(folder: Path) -> Arrays:
    """The weights in a folder; nobody may write into the arrays.

    Raises:
        InputError: The file is missing, a link, of somebody else, open to others, not the one that
            its folder is named by, or holds no weights.
    """
    path = folder / WEIGHTS
    content = read_owned_bytes(path, MAX_ARRAY_BYTES, "file of start weights")
    if start_digest(content) != folder.name:
        raise InputError(f"{path}: damaged start weights (their hash differs); encrypt once more")
    try:
        arrays = safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: no readable start weights ({error})") from None
    for value in arrays.values():
        value.flags.writeable = False
    return arrays
