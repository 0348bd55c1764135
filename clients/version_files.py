"""Tensors that the app keeps by round, in files whose hash is checked when they are read.

<folder>/round_<nnnn>.safetensors
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from clients.policy.owned_file import read_owned_bytes
from fl_ppseg.config.run_layout import round_file, round_of, rounds_in
from fl_ppseg.federation.message_fields import MAX_ARRAY_BYTES
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically


def versions(folder: Path) -> list[int]:
    """Rounds of the versions in a folder, ascending; none if there is no folder."""
    numbers = map(round_of, rounds_in(folder, ".safetensors"))
    return [number for number in numbers if number is not None]


def read_version(folder: Path, number: int, dtype: type[np.generic], what: str) -> Arrays:
    """The tensors of a version.

    Args:
        folder: That holds it.
        number: Its round.
        dtype: Of all its tensors.
        what: They are, for messages.

    Raises:
        InputError: It is missing or damaged.
    """
    path = round_file(folder, number)
    content = read_owned_bytes(path, MAX_ARRAY_BYTES, f"file of {what}")
    try:
        stored = safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: unreadable ({error}); remove its folder") from None
    if _packed(number, stored) != content or any(v.dtype != dtype for v in stored.values()):
        raise InputError(f"{path}: damaged (its hash differs); remove its folder")
    return stored


def write_version(folder: Path, number: int, stored: Arrays) -> None:
    """Write a version atomically; only this user may read it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(round_file(folder, number), _packed(number, stored), mode=0o600)


def remove_versions(folder: Path, numbers: set[int]) -> None:
    """Remove versions."""
    for number in numbers:
        round_file(folder, number).unlink()


def _packed(number: int, stored: Mapping[str, np.ndarray]) -> bytes:
    about = {"sha256": _hash(number, stored)}  # one entry: the order of several is not fixed
    return safetensors.numpy.save(dict(stored), metadata=about)


def _hash(number: int, stored: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(f"round {number}".encode())
    for name in sorted(stored):
        digest.update(json.dumps([name, stored[name].shape]).encode() + stored[name].tobytes())
    return digest.hexdigest()
