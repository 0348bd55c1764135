"""The weights of round 0 as an owner hands them to its node: made by the owner, from the config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from clients.start_weights import START, WEIGHTS, packed_start, start_digest
from clients.vault.assignment import file_mode, folder_mode
from clients.vault.handed_over import note_start
from clients.vault.node_directory import LEFT, NodeDirectory
from fl_ppseg.arm_models import embedding_reads, model_settings
from fl_ppseg.checkpoints import find_checkpoint
from fl_ppseg.config import ArmConfig, Config
from fl_ppseg.files import sha256
from fl_ppseg.messages import Arrays
from fl_ppseg.public_weights import check_start, initial_model

_DIGITS: Final = 16


def start_of(config: Config, name: str, arm: ArmConfig, num_classes: int, seed: int) -> Arrays:
    """The weights of round 0 of an arm, all of a model's tensors.

    Raises:
        InputError: As `initial_model` and `model_settings`.
    """
    section = model_settings(config.model, name, arm)
    own = config.model_copy(update={"model": section})
    model = initial_model(own, num_classes, seed, embedding_reads(section, arm))
    return {name: value.numpy() for name, value in model.state_dict().items()}


def hand_over_start(
    vault: Path, node: NodeDirectory, weights: Mapping[str, np.ndarray], readers: int | None
) -> Path:
    """Put start weights into a node folder; those that are there are kept.

    Args:
        vault: The owner's, which records them first.
        node: The node folder.
        weights: Of `start_of`.
        readers: Id of a group that may read them; None: their owner alone.

    Returns:
        Their folder.
    """
    content = packed_start(weights)
    digest, mode = start_digest(content), folder_mode(readers)
    note_start(vault, digest)
    with (
        node.folder.make_child(START, mode, group=readers) as starts,
        starts.make_child(digest, mode, group=readers) as folder,
    ):
        for entry in folder.entries():  # of a process that was killed
            if LEFT.fullmatch(entry.name):
                folder.remove(entry.name)
        found = folder.find(WEIGHTS)
        if found is None or folder.read(WEIGHTS, found.status.st_size) != content:
            folder.write(WEIGHTS, content, file_mode(readers), group=readers)
    return node.folder.path / START / digest


def whence(config: Config) -> str:
    """Where the weights of round 0 come from, in words; the same wherever a file lies.

    Raises:
        InputError: The config names a file that is none of weights.
    """
    model = config.model
    if model.pretrained:
        return "timm's published ones in the backbone, the rest drawn by the seed"
    if model.weights is None:
        return "drawn by the seed"
    if model.weights == "shipped":
        return "the package's own"
    check_start(Path(model.weights))
    file = find_checkpoint(Path(model.weights))
    return f"from the file {file.name}, SHA-256 {sha256(file)[:_DIGITS]}..."
