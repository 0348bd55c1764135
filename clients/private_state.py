"""A node's private state: the patch embedding that it keeps for itself, versioned by round.

    <folder>/round_0000.safetensors    as its owner made it
    <folder>/round_<nnnn>.safetensors  after training in that round

A private embedding is key material: folders are 0700, files 0600, and nothing of them is ever sent.
A repeated round starts from the version before, whatever came of it the first time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
from torch import Tensor

from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically
from fl_ppseg.setr.names import EMBEDDING_TENSORS

KEPT: Final = 3
"""Newest versions that stay beside that of round 0: a coordinator that lost a round's checkpoint
while the next was under way repeats both, from the version before them."""


def load_private(folder: Path, round: int) -> dict[str, Tensor]:
    """The newest version that is not of a later round.

    Args:
        folder: Versions of one embedding.
        round: The last round whose training may have had a part in it.

    Raises:
        InputError: There is none, or it is damaged.
    """
    numbers = [number for number in versions(folder) if number <= round]
    if not numbers:
        raise InputError(f"{folder}: no private embedding; prepare the run again")
    path = _file(folder, numbers[-1])
    try:
        tensors = safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path}: no readable private embedding ({error}); remove it and prepare the run again"
        ) from None
    if set(tensors) != set(EMBEDDING_TENSORS):
        raise InputError(f"{path}: holds other tensors than a patch embedding's; remove it")
    return tensors


def save_private(folder: Path, round: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the version of a round, whole or not at all; those of later rounds are void and go.

    Args:
        folder: A folder that is its owner's alone.
        round: Round whose training made it; 0: the start.
        tensors: `EMBEDDING_TENSORS`.
    """
    embedding = {name: tensors[name].contiguous() for name in EMBEDDING_TENSORS}
    write_atomically(_file(folder, round), safetensors.torch.save(embedding), mode=0o600)
    forget_after(folder, round)
    for number in versions(folder)[1:-KEPT]:
        _file(folder, number).unlink()


def forget_after(folder: Path, round: int) -> None:
    """Remove the versions of later rounds, which the coordinator knows nothing of."""
    for number in versions(folder):
        if number > round:
            _file(folder, number).unlink()


def versions(folder: Path) -> list[int]:
    """Rounds of the versions in a folder, ascending."""
    files = folder.glob("round_*.safetensors")
    return sorted(int(path.stem.removeprefix("round_")) for path in files)


def _file(folder: Path, round: int) -> Path:
    return folder / f"round_{round:04d}.safetensors"
