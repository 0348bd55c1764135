"""A node's private state: the patch embedding that never leaves it, versioned by round.

    <node folder>/private/<digest>/round_0000.safetensors   as its owner made it; only read here
    <state>/private/<digest>/round_<nnnn>.safetensors       after training in that round
    <state>/private/<digest>/superseded/                    versions that a repeated round replaced

A private embedding is key material: folders are 0700, files 0600, and they are never sent. Each
file contains the hash of its round and its tensors, which is checked when it is loaded.

A repeated round starts from the version before it, whatever its first result was. A coordinator
cannot make the node delete a trained version: if a repeated round gives the same result, nothing
changes; if it gives another, the earlier version and later ones are moved to `superseded`. How
often that can happen is bounded by the distinct questions that the owner agreed to.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import safetensors.numpy

from fl_ppseg.config.run_layout import round_file, round_of, rounds_in
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

KEPT: Final = 3
"""Number of newest trained versions to keep: a coordinator that lost a round's checkpoint during
the next round repeats both, from the version before them."""
TRAINED: Final = "private"
SUPERSEDED: Final = "superseded"
DIGEST_LENGTH: Final = 32


def trained_folder(state: Path, start: Path) -> Path:
    """The folder in which the app keeps the trained versions of an embedding.

    Args:
        state: The node's state folder.
        start: Folder of the version that its owner made.
    """
    return state / TRAINED / start.name


def load_private(start: Path, trained: Path, round: int) -> Arrays:
    """Load the newest version that is not of a later round.

    Args:
        start: Folder of the version that its owner made.
        trained: `trained_folder`; need not exist.
        round: The latest round to consider.

    Raises:
        InputError: It is missing, or damaged.
    """
    numbers = [number for number in versions(trained) if 0 < number <= round]
    return _load(trained, numbers[-1]) if numbers else load_start(start)


def load_start(folder: Path) -> Arrays:
    """Load the version that its owner made.

    Raises:
        InputError: It is missing, or damaged.
    """
    return _load(folder, 0)


def save_start(folder: Path, tensors: Arrays) -> None:
    """Write the version that training starts from, atomically; called by its owner.

    Args:
        folder: A folder that only its owner can write.
        tensors: `EMBEDDING_TENSORS`.
    """
    write_atomically(_file(folder, 0), packed(0, tensors), mode=0o600)


def save_trained(trained: Path, round: int, tensors: Arrays) -> None:
    """Save the version that a completed training made, atomically.

    Args:
        trained: `trained_folder`; made if it is missing.
        round: The round that was trained, from 1.
        tensors: `EMBEDDING_TENSORS`.
    """
    trained.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = packed(round, tensors)
    path = _file(trained, round)
    if path.exists() and path.read_bytes() == content:
        return
    set_aside_after(trained, round - 1)
    write_atomically(path, content, mode=0o600)
    for number in versions(trained)[:-KEPT]:
        _file(trained, number).unlink()


def set_aside_after(trained: Path, round: int) -> None:
    """Move the versions after a round to `superseded`, where their owner can find them by hash."""
    for number in versions(trained):
        if number > round:
            path = _file(trained, number)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST_LENGTH]
            aside = trained / SUPERSEDED
            aside.mkdir(exist_ok=True, mode=0o700)
            path.rename(aside / f"{path.stem}-{digest}.safetensors")


def remove_trained(state: Path) -> None:
    """Remove all trained versions, as the app's part of a withdrawal."""
    for folder in sorted((state / TRAINED).glob("[0-9a-f]" * DIGEST_LENGTH)):
        shutil.rmtree(folder)


def versions(folder: Path) -> list[int]:
    """Rounds of the versions in a folder, ascending."""
    numbers = map(round_of, rounds_in(folder, ".safetensors"))
    return [number for number in numbers if number is not None]


def packed(round: int, tensors: Arrays) -> bytes:
    """The content of a version's file: safetensors, with the hash of round and embedding."""
    embedding = {name: np.ascontiguousarray(tensors[name]) for name in EMBEDDING_TENSORS}
    about = {"sha256": _hash(round, embedding)}  # one entry: the order of several is not fixed
    return safetensors.numpy.save(embedding, metadata=about)


def _load(folder: Path, round: int) -> Arrays:
    path = _file(folder, round)
    if not path.exists():
        raise InputError(f"{folder}: no private embedding; prepare the run again")
    remedy = "restore it, or remove it and prepare the run again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: unreadable private embedding ({error}); {remedy}") from None
    return unpacked(content, round, path, remedy)


def unpacked(content: bytes, round: int, path: Path, remedy: str) -> Arrays:
    """The embedding in the content of a version's file.

    Args:
        content: As of `packed`.
        round: Of the version.
        path: Its file, for errors.
        remedy: What to do, for errors.

    Raises:
        InputError: It is damaged, or of another round.
    """
    try:
        tensors = safetensors.numpy.load(content)
        about = _metadata(content)
    except (ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: unreadable private embedding ({error}); {remedy}") from None
    if set(tensors) != set(EMBEDDING_TENSORS):
        raise InputError(f"{path}: expected the tensors of a patch embedding only; {remedy}")
    if about != {"sha256": _hash(round, tensors)}:
        raise InputError(f"{path}: damaged private embedding (its hash differs); {remedy}")
    return tensors


def _metadata(content: bytes) -> object:
    """The metadata of a safetensors file whose format was checked before."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return header.get("__metadata__")


def _hash(round: int, tensors: Arrays) -> str:
    digest = hashlib.sha256(f"round {round}".encode())
    for name in EMBEDDING_TENSORS:
        array = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _file(folder: Path, round: int) -> Path:
    return round_file(folder, round)
