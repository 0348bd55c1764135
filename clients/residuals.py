"""Residuals: what coding earlier updates lost, which a node adds to its next one (error feedback).

    <state>/residuals/<digest>/round_<nnnn>.safetensors    after that round, for one run, arm and
                                                           seed; float32, as large as the weights

A repeated round starts from the version before it, whatever its first result was, and gives the
same bits, as far back as versions are kept. An update that the coordinator rejects, or that comes
too late, takes the residual in it along. A residual is what a node has learnt and not sent: it
never leaves the node.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from clients.version_files import read_version, remove_versions, versions, write_version
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

RESIDUALS: Final = "residuals"
KEPT: Final = 3
"""Number of versions: a coordinator that lost a round's checkpoint during the next round repeats
both, from the version before them."""
_DIGITS: Final = 32


def residual_folder(state: Path, run: str | None, arm: str, seed: int) -> Path:
    """The folder of the residuals of a run (its id, or the hash of an agreement), arm and seed."""
    digest = hashlib.sha256(json.dumps([run, arm, seed]).encode()).hexdigest()[:_DIGITS]
    return state / RESIDUALS / digest


def load_residual(folder: Path, round: int, like: Mapping[str, np.ndarray]) -> Arrays:
    """The residual with which a round begins; empty if no update was coded before it.

    Args:
        folder: Of `residual_folder`; need not exist.
        round: The round.
        like: Weights whose shapes the residual must have.

    Raises:
        InputError: It is damaged, or of other weights.
    """
    earlier = [number for number in versions(folder) if number < round]
    if not earlier:
        return {}
    residual = read_version(folder, earlier[-1], np.float32, "residuals")
    for name, value in residual.items():
        if name not in like or value.shape != like[name].shape or not np.isfinite(value).all():
            raise InputError(f"{folder}: holds residuals of other weights; remove it")
    return residual


def save_residual(folder: Path, round: int, residual: Arrays) -> None:
    """Keep the residual after a round, in place of those of this round and later ones."""
    write_version(folder, round, residual)
    kept = [number for number in versions(folder) if number <= round][-KEPT:]
    remove_versions(folder, {*versions(folder)} - {*kept})


def remove_residuals(state: Path) -> None:
    """Remove all, as the app's part of a withdrawal."""
    if (state / RESIDUALS).is_dir():
        shutil.rmtree(state / RESIDUALS)
