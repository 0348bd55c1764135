"""Export of the weights of round 0 to a node folder, and a description of their source."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from clients.policy.start_weights import START, WEIGHTS, packed_start, start_digest
from clients.vault.assignment import file_mode, folder_mode
from clients.vault.node_folders.directory import LEFT, NodeDirectory
from clients.vault.node_folders.exports import record_start
from fl_ppseg.config.sections import Config
from fl_ppseg.system.files import sha256

_DIGITS: Final = 16


def export_start(
    vault: Path, node: NodeDirectory, weights: Mapping[str, np.ndarray], readers: int | None
) -> Path:
    """Write start weights into a node folder; existing ones are kept if they are identical.

    Args:
        vault: The owner's vault, which records them first.
        node: The node folder.
        weights: Of `clients.vault.shards.start_model.start_of`.
        readers: Id of a group that may read them; None: only their owner may.

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
    """A description of where the weights of round 0 come from, without the path of a file.

    Raises:
        InputError: The config names a file that does not hold weights.
    """
    model = config.model
    if model.pretrained:
        return "timm's published weights in the backbone, the rest drawn from the seed"
    if model.weights is None:
        return "drawn from the seed"
    if model.weights == "shipped":
        return "shipped with the package"
    from clients.vault.shards.start_model import start_file  # loads PyTorch

    file = start_file(Path(model.weights))
    return f"from the file {file.name}, SHA-256 {sha256(file)[:_DIGITS]}..."
