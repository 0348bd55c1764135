"""The models of round 0: the embedding of each arm, and the source of its weights."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.adaptation import adapted_embedding, linear_form
from fl_ppseg.crypto.arm_images import check_windows
from fl_ppseg.crypto.arm_models import embedding_reads, model_settings
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.federation.checkpoint_file import Checkpoint, settings_hash
from fl_ppseg.federation.description import Description
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

Models = dict[tuple[int, str], SETR]
"""By seed and arm; arms whose embeddings read the same, with the same heads, share one object."""


def initial_models(config: Config, num_classes: int) -> Models:
    """The models of round 0 of every seed and arm.

    Raises:
        InputError: As `initial_model` and `model_settings`, or an arm's embedding is to be adapted
            to a cipher that is not linear.
    """
    arms = arms_of(config)
    settings = {name: model_settings(config.model, name, arm) for name, arm in arms.items()}
    built: dict[tuple[int, str | None, bool], SETR] = {}
    models: Models = {}
    for seed, (name, arm) in product(config.seeds, arms.items()):
        reads = embedding_reads(settings[name], arm)
        like = (seed, reads, settings[name].pixel_head)
        if like not in built:
            own = config.model_copy(update={"model": settings[name]})
            built[like] = initial_model(own, num_classes, seed, reads)
        models[seed, name] = built[like]
    block_size = next(iter(models.values())).patch_size
    for name, arm in arms.items():  # refused here, not after all images are encrypted
        check_arm(config.model, name, arm, block_size)
        if config.data.frame_size is not None:
            size = config.data.image_size
            check_windows(arm.cipher, config.data.frame_size, size, block_size)
    return models


def check_arm(model: ModelConfig, name: str, arm: ArmConfig, block_size: int) -> None:
    """Check that an arm can be trained at all.

    Raises:
        InputError: As `model_settings`; the cipher is unknown, cannot encrypt blocks of this size,
            or is not linear although the arm's embedding is adapted to it.
    """
    model_settings(model, name, arm)
    if arm.cipher is None:
        return
    probe = np.zeros((3, block_size, block_size), np.uint8)
    try:
        encrypt(probe, SubKey.generate(), arm.cipher, block_size=block_size, scope="common")
        if _adapts(arm):
            linear_form(arm.cipher, SubKey.generate(), block_size)
    except InputError as error:
        raise InputError(f"arm {name}: {error}") from None


def save_initial(
    config: Config, folder: RunFolder, classes: ClassTable, models: Models, vault_dir: Path | None
) -> None:
    """Write the checkpoint of round 0 of every arm and seed that has none yet.

    Args:
        config: The experiment.
        folder: Its run folder.
        classes: Classes of the models.
        models: Of `initial_models`.
        vault_dir: The owners' side, with the shared key of `adapted` embeddings; None on a machine
            without it, and so without such arms.
    """
    for seed, (name, arm) in product(config.seeds, arms_of(config).items()):
        if folder.latest(name, seed) is not None:
            continue
        settings = model_settings(config.model, name, arm)
        model = models[seed, name]
        weights = model.state_dict()
        if arm.embedding == "adapted":  # published as it is: the method trusts who has the weights
            assert vault_dir is not None
            key = ensure_shared_subkey(vault_dir, arm)
            weights |= adapted_embedding(weights, arm.cipher, arm.block_scope, key)
        built = settings.model_copy(update={"patch_size": model.patch_size})
        description = Description(
            arm=name,
            seed=seed,
            model=ModelConfig(**built.model_dump()),  # defaults too are given, and so written
            classes=classes.names,
            image_size=config.data.image_size,
            fit=config.data.fit,
            protection=ArmConfig(**arm.model_dump()),
            ciphers=versions_of(arm.cipher),
            settings=settings_hash(config),
        )
        folder.save(Checkpoint(0, _arrays(weights), {}, description), keep=1)


def _adapts(arm: ArmConfig) -> bool:
    return arm.embedding in ("adapted", "private") or arm.encrypted == "queries"


def _arrays(weights: Mapping[str, Tensor]) -> Arrays:
    """Tensors as arrays with memory of their own."""
    return {name: np.array(value.numpy()) for name, value in weights.items()}
