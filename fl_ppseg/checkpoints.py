"""The models that the checkpoints of a run hold."""

import torch
from torch import Tensor

from fl_ppseg.config import ArmConfig, ModelConfig
from fl_ppseg.run_folder import Checkpoint, RunFolder
from fl_ppseg.setr.model import SETR, build_architecture


def latest(folder: RunFolder, arm: str, seed: int) -> Checkpoint | None:
    """The newest trained checkpoint whose weights are one model."""
    checkpoint = folder.latest(arm, seed)
    if checkpoint is None or checkpoint.is_per_city or checkpoint.round == 0:
        return None
    return checkpoint


def model_of(checkpoint: Checkpoint) -> SETR:
    """The model that a checkpoint describes, with its weights."""
    settings = ModelConfig.model_validate(checkpoint.description["model"])
    height, width = checkpoint.description["image_size"]
    num_classes = len(checkpoint.description["classes"])
    model = build_architecture(settings, num_classes, (height, width))
    model.load_state_dict(weights_of(checkpoint))
    return model.eval()


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of the model, by name; a private embedding is there as public weights have it."""
    return {name: torch.from_numpy(value) for name, value in checkpoint.arrays.items()}


def protection_of(checkpoint: Checkpoint) -> ArmConfig:
    """How the arm that was trained protects images."""
    return ArmConfig.model_validate(checkpoint.description["protection"])
