"""A private embedding that a node trained, where its owner asks a model with it.

A node's app keeps it in its state folder, versioned by round (`clients.private_state`); there, or
in a copy of it, it is found here. It may have gone through other hands: no link is followed,
nobody else may be able to write it, and it is bounded and checked before it is used. It is key
material: errors name its file, never a value.
"""

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from clients.private_state import DIGEST_LENGTH, TRAINED, unpacked
from fl_ppseg.config.run_layout import round_file, round_of
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

STATE: Final = "state"
"""The state folder in the home of a node's app."""
SUFFIX: Final = ".safetensors"
MAX_HEADER: Final = 2**16
"""Bytes of a version's file beside its tensors."""


class Version(NamedTuple):
    """An embedding after a round."""

    path: Path
    tensors: Arrays
    """`EMBEDDING_TENSORS`."""


def read_version(place: Path, newest: int | None, like: Arrays) -> Version:
    """The embedding in a file, or the newest version of a folder that is not of a later round.

    Args:
        place: A version, `round_<nnnn>.safetensors`; the folder of the versions of one embedding;
            or a state folder, or an app's home, in which one embedding was trained.
        newest: The round of the model; None: the newest version is taken.
        like: The model's own, whose shapes and types it must have.

    Raises:
        InputError: There is none or there are several, it is damaged or a link, others may write
            it, or it is of another model.
    """
    try:
        path, content = _content(place, newest, MAX_HEADER + sum(a.nbytes for a in like.values()))
    except OSError as error:
        raise InputError(f"{error.filename or place}: cannot be read ({error.strerror})") from None
    tensors = unpacked(content, round_of(path) or 0, path, "copy it from the node again")
    for name in EMBEDDING_TENSORS:
        found, own = tensors[name], like[name]
        if (found.shape, found.dtype) != (own.shape, own.dtype):
            raise InputError(
                f"{path}: an embedding of {found.dtype} {found.shape}, expected {own.dtype} "
                f"{own.shape} as the model has; it belongs to another model"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{path}: holds values that are not finite; take another version")
    return Version(path, tensors)


def _content(place: Path, newest: int | None, max_bytes: int) -> tuple[Path, bytes]:
    if place.suffix == SUFFIX:
        if round_of(place) is None:
            expected = round_file(Path(), 2)
            raise InputError(f"{place}: not named as a version is, e.g. {expected}; name it so")
        with Directory.open(place.parent) as folder:
            return place, folder.read(place.name, max_bytes, own=True)
    with Directory.open(place) as given:
        return _in_folder(given, newest, max_bytes)


def _in_folder(folder: Directory, newest: int | None, max_bytes: int) -> tuple[Path, bytes]:
    """Of a home, a state folder or a folder of versions, which are told by what lies there."""
    for name in (STATE, TRAINED):
        if folder.find(name) is not None:
            with folder.child(name) as below:
                return _in_folder(below, newest, max_bytes)
    entries = folder.entries()
    digests = [each.name for each in entries if len(each.name) == DIGEST_LENGTH]
    if len(digests) > 1:
        raise InputError(
            f"{folder.path}: holds embeddings of several arms or seeds ({', '.join(digests[:8])}); "
            "give the folder of one of them: the node's policy.yaml names them under `private`"
        )
    if digests:
        with folder.child(digests[0]) as below:
            return _in_folder(below, newest, max_bytes)
    names = [Path(each.name) for each in entries if Path(each.name).suffix == SUFFIX]
    rounds = sorted(number for name in names if (number := round_of(name)) is not None)
    fitting = [number for number in rounds if newest is None or number <= newest]
    if not fitting:
        found = f"only of later rounds than the model's, {newest}" if rounds else "none"
        raise InputError(
            f"{folder.path}: expected versions of a trained embedding, got {found}; one that was "
            "not trained is not needed, for the model's own is adapted to the key"
        )
    file = round_file(folder.path, fitting[-1])
    return file, folder.read(file.name, max_bytes, own=True)
