"""Weights of round 0 that everybody may have: from the seed, the package or a file."""

from pathlib import Path

import numpy as np

from fl_ppseg.config.sections import Config
from fl_ppseg.federation.checkpoints import load_checkpoint, weights_of
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.shipped import SHIPPED, shipped_weights
from fl_ppseg.setr.weights import check_weights_file, fit_weights, load_weights
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError


def initial_model(config: Config, num_classes: int, seed: int, reads: str | None = None) -> SETR:
    """The model of round 0, with the weights that the config names.

    Args:
        config: The experiment; section `model` as an arm wants it.
        num_classes: Of its class table.
        seed: Of what no weights are given for.
        reads: What an arm's embedding reads, of `arm_models.embedding_reads`, where that is not
            what `model.invariant` says.

    Raises:
        InputError: If sizes do not fit, or weights cannot be had.
    """
    settings, own = config.model, config.model.weights
    drawn = settings.model_copy(update={"weights": None})
    model = build_setr(drawn, num_classes, config.data.image_size, seed=seed)
    if own is not None:
        shipped = shipped_weights(reads or settings.invariant, pixel_head=settings.pixel_head)
        load_start(model, shipped if own == SHIPPED else Path(own))
    return model


def check_start(path: Path) -> None:
    """Look at what training is to start from before any work is done for it.

    Raises:
        InputError: It is neither a weights file nor a checkpoint.
    """
    if path.is_dir() or path.with_suffix(".json").exists():
        load_checkpoint(path)
    else:
        check_weights_file(path)


def load_start(model: SETR, path: Path) -> None:
    """Load weights to start from: a weights file, or a checkpoint of an earlier run.

    Args:
        model: What they are for; classifiers of other classes start from scratch.
        path: A .safetensors file, or a run's or an arm's folder, of which the newest is taken.

    Raises:
        InputError: It cannot be read, or does not fit the model.
    """
    if not (path.is_dir() or path.with_suffix(".json").exists()):
        load_weights(model, path)
        return
    checkpoint = load_checkpoint(path)
    if checkpoint.has_own_models:
        raise InputError(f"{path}: holds one model per client, and no common one to start from")
    about = checkpoint.description
    side = about.patch_size
    height, width = about.image_size
    state, form = weights_of(checkpoint), about.model.invariant
    fit_weights(model, state, path, (height // side, width // side), form)


def public_embedding(model: SETR) -> Arrays:
    """`EMBEDDING_TENSORS` of a model."""
    state = model.state_dict()
    return {name: np.array(state[name].numpy()) for name in EMBEDDING_TENSORS}
