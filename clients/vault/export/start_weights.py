"""The weights of round 0 as an owner hands them to its node, and in words where they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from clients.policy.start_weights import START, WEIGHTS, packed_start, start_digest
from clients.vault.assignment import file_mode, folder_mode
from clients.vault.node_folders.exports import record_start
from clients.vault.node_folders.node_directory import LEFT, NodeDirectory
from fl_ppseg.config.sections import Config
from fl_ppseg.system.files import sha256

_DIGITS: Final = 16


def export_start(
    vault: Path, node: NodeDirectory, weights: Mapping[str, np.ndarray], readers: int | None
) -> Path:
    """Put start weights into a node folder; those that are there are kept.

    Args:
        vault: The owner's, which records them first.
        node: The node folder.
        weights: Of `clients.vault.shards.start_model.start_of`.
        readers: Id of a group that may read them; None: their owner alone.

    Returns:
        Their folder.
    """
    content = packed_start(weights)
    digest, mode = start_digest(content), folder_mode(readers)
    record_start(vault, digest)
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


def start_source(config: Config) -> str:
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
    from clients.vault.shards.start_model import start_file  # loads PyTorch

    file = start_file(Path(model.weights))
    return f"from the file {file.name}, SHA-256 {sha256(file)[:_DIGITS]}..."
