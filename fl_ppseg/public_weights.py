"""Weights of round 0 that everybody may have: from the seed, the package or a file."""

from pathlib import Path

import numpy as np

from fl_ppseg.config import Config
from fl_ppseg.messages import Arrays
from fl_ppseg.setr.model import SETR, build_setr
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.setr.weights import load_weights

WEIGHTS = Path(__file__).parent / "weights"
"""Made by `python -m fl_ppseg.pretrain` from plain, public, procedural scenes."""


def shipped_weights(invariant: str | None) -> Path:
    """The package's own weights.

    Args:
        invariant: Canonical form that the embedding reads; None: images as they are.

    Returns:
        The file for this form, or the one for images where the package has none.
    """
    plain = WEIGHTS / "setr_procedural.safetensors"
    own = plain if invariant is None else WEIGHTS / f"setr_procedural_{invariant}.safetensors"
    return own if own.is_file() else plain


def initial_model(config: Config, num_classes: int, seed: int) -> SETR:
    """The model of round 0, with the weights that the config names.

    Raises:
        InputError: If sizes do not fit, or weights cannot be had.
    """
    settings = config.model
    model = build_setr(settings, num_classes, config.data.image_size, seed=seed)
    if settings.weights is not None:
        is_shipped = settings.weights == "shipped"
        file = shipped_weights(settings.invariant) if is_shipped else Path(settings.weights)
        load_weights(model, file)
    return model


def public_embedding(model: SETR) -> Arrays:
    """`EMBEDDING_TENSORS` of a model."""
    state = model.state_dict()
    return {name: np.array(state[name].numpy()) for name in EMBEDDING_TENSORS}
