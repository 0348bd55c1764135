"""Descriptions of checkpoints in tests that need no model."""

from typing import Any

from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.federation.description import Description


def described(arm: str = "plain", seed: int = 0, **changes: Any) -> Description:
    """Of a small model with two classes; `changes` are other values of its fields."""
    known = builtin_arms()
    values = {
        "arm": arm,
        "seed": seed,
        "model": {"patch_size": 8},
        "classes": ["road", "sky"],
        "image_size": [64, 128],
        "fit": "resize",
        "protection": known.get(arm, known["plain"]).model_dump(),
    }
    return Description.model_validate(values | changes)
