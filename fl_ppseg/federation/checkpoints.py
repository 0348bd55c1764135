"""The models that the checkpoints of a run hold, and which file of a folder holds the newest."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.cipher_versions import as_recorded, check_versions
from fl_ppseg.config.run_layout import CHECKPOINTS, round_of, rounds_in
from fl_ppseg.federation.checkpoint_file import OF_CLIENT, Checkpoint, read_checkpoint
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.sizes import tensor_shapes
from fl_ppseg.system.errors import InputError


def find_checkpoint(path: Path) -> Path:
    """The file that a path stands for: itself, or the newest of an arm's or a run's folder.

    Raises:
        InputError: There is none, a folder holds several arms or seeds, or it is another file.
    """
    if not path.is_dir():
        if path.suffix != ".safetensors" and path.exists():
            raise InputError(
                f"{path}: not a checkpoint; expected round_<nnnn>.safetensors, or the folder of an "
                "arm or a run"
            )
        return path
    folders = sorted({file.parent for file in _files(path)})
    if not folders:
        raise InputError(
            f"{path}: no checkpoint found; give a run folder, an arm's folder or a round's file"
        )
    if len(folders) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in folders[:4])
        more = ", …" if len(folders) > 4 else ""
        raise InputError(
            f"{path}: holds several arms or seeds ({names}{more}); give the folder of one of them"
        )
    return max(_files(path), key=lambda file: round_of(file) or 0)


def _files(folder: Path) -> Iterator[Path]:
    for place in (folder, *folder.glob("seed_*"), *folder.glob(CHECKPOINTS)):
        for file in rounds_in(place, ".safetensors"):
            if file.with_suffix(".json").exists():
                yield file


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from wherever it comes, and check that it describes its tensors.

    Args:
        path: As in `find_checkpoint`.

    Raises:
        InputError: As `find_checkpoint` and `read_checkpoint`, or its .json describes no model, or
            another than its tensors are of.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    about = checkpoint.description
    try:
        shapes = tensor_shapes(about.model, len(about.classes), about.image_size)
    except InputError as error:
        raise InputError(f"{file.with_suffix('.json')}: {error}") from None
    own = {
        name: value
        for name, value in checkpoint.arrays.items()
        if not checkpoint.has_own_models or OF_CLIENT in name
    }
    found = {(name.rpartition(OF_CLIENT)[2], value.shape) for name, value in own.items()}
    if found != set(shapes.items()):
        raise InputError(f"{file}: its tensors are not those of the model that its .json describes")
    return checkpoint


def latest(folder: RunFolder, arm: str, seed: int) -> Checkpoint | None:
    """The newest trained checkpoint whose weights are one model."""
    checkpoint = folder.latest(arm, seed)
    if checkpoint is None or checkpoint.has_own_models or checkpoint.round == 0:
        return None
    return checkpoint


def model_of(checkpoint: Checkpoint) -> SETR:
    """The model that a checkpoint describes, with its weights."""
    about = checkpoint.description
    model = build_architecture(about.model, len(about.classes), about.image_size)
    model.load_state_dict(weights_of(checkpoint))
    return model.eval()


def models_in(checkpoint: Checkpoint) -> list[Checkpoint]:
    """The one common model, or that of every client, each as a checkpoint of its own."""
    if not checkpoint.has_own_models:
        return [checkpoint]
    of_client: dict[str, dict[str, np.ndarray]] = {}
    for name, value in checkpoint.arrays.items():
        client, separator, tensor = name.partition(OF_CLIENT)
        if separator:
            of_client.setdefault(client, {})[tensor] = value
    return [replace(checkpoint, arrays=arrays) for _, arrays in sorted(of_client.items())]


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of the model, by name; a private embedding is there as public weights have it."""
    return {name: torch.from_numpy(value) for name, value in checkpoint.arrays.items()}


def protection_of(checkpoint: Checkpoint) -> ArmConfig:
    """How the arm that was trained protects images.

    Raises:
        InputError: By another version of its cipher, which its weights were trained to read. An
            invariant embedding reads what every key leaves, and so what every version leaves.
    """
    protection = checkpoint.description.protection
    if protection.embedding != "invariant":
        check_ciphers(checkpoint, protection)
    return protection


def check_ciphers(checkpoint: Checkpoint, protection: ArmConfig) -> None:
    """Check that an arm was trained on what this program encrypts.

    Raises:
        InputError: It was trained on what another version of its cipher encrypted.
    """
    about = checkpoint.description
    found = as_recorded(protection.cipher, about.ciphers)
    check_versions(found, f"images that arm {about.arm} was trained on", "train again")
