"""The model of round 0, which an owner builds from the config; loads PyTorch."""

from pathlib import Path

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.arm_models import embedding_reads, model_settings
from fl_ppseg.federation.checkpoints import find_checkpoint
from fl_ppseg.federation.public_weights import check_start, initial_model, public_embedding
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.system.arrays import Arrays


def patch_size_of(config: Config, num_classes: int) -> int:
    """Side of a patch of the config's model in pixels, which is the block of the ciphers.

    Raises:
        InputError: The sizes do not fit each other.
    """
    return build_architecture(config.model, num_classes, config.data.image_size).patch_size


def start_of(config: Config, name: str, arm: ArmConfig, num_classes: int, seed: int) -> Arrays:
    """The weights of round 0 of an arm, all of a model's tensors.

    Raises:
        InputError: As `initial_model` and `model_settings`.
    """
    section = model_settings(config.model, name, arm)
    own = config.model_copy(update={"model": section})
    model = initial_model(own, num_classes, seed, embedding_reads(section, arm))
    return {name: value.numpy() for name, value in model.state_dict().items()}


def embedding_of(config: Config, num_classes: int, seed: int) -> Arrays:
    """The public patch embedding of round 0.

    Raises:
        InputError: As `initial_model`.
    """
    return public_embedding(initial_model(config, num_classes, seed))


def start_file(path: Path) -> Path:
    """The weights file that a config's path refers to.

    Raises:
        InputError: It is neither a weights file nor a checkpoint.
    """
    check_start(path)
    return find_checkpoint(path)
