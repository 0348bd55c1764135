"""What the tests of the coordinator's attacks share: small models, and what their clients send."""

from collections.abc import Sequence
from typing import Any

import small_federation as small

from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Truth, overhear
from fl_ppseg.data.dataset import Scene
from fl_ppseg.federation.public_weights import initial_model

ONE_STEP = {"optimizer": "sgd", "learning_rate": 0.1, "gradient_clip": 0.0, "batch_size": 16}


def message(
    arm: str,
    scenes: Sequence[Scene],
    *,
    model: dict[str, Any] | None = None,
    form: str | None = None,
    size: tuple[int, int] = (32, 64),
    **training: Any,
) -> tuple[Exchange, Truth]:
    """One step of SGD on all scenes, or what `training` says; `form` of an invariant embedding."""
    settings = small.config(
        None,
        arms=[arm],
        data={"image_size": size},
        model=model or {},
        training=ONE_STEP | training,
    )
    section = settings.model.model_copy(update={"invariant": form})
    own = settings.model_copy(update={"model": section})
    network = initial_model(own, small.NUM_CLASSES, seed=0)
    weights = {name: value.numpy() for name, value in small.weights_of(network).items()}
    return overhear(settings, arm, weights, scenes)
