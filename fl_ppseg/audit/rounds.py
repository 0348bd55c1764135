"""Rounds that the coordinator of an arm keeps: one as the arm is trained, and its best case.

The best case for the coordinator is a client with one image that takes one step of plain gradient
descent: it chooses the settings of the training, so it may ask for that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.scores import Images
from fl_ppseg.audit.update import overhear
from fl_ppseg.config import Config
from fl_ppseg.dataset import Scene
from fl_ppseg.messages import Arrays

SINGLE: Final = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "poly_power": 0.0,
    "gradient_clip": 0.0,
    "batch_size": 1,
    "local_epochs": 1,
    "proximal_mu": 0.0,
    "ohem_fraction": 1.0,
    "loss_size": "labels",
}
"""Training settings of one step of plain gradient descent."""


@dataclass(frozen=True, eq=False)
class Overheard:
    """One client's round as its coordinator keeps it, and what the images were."""

    exchange: Exchange = field(repr=False)
    truth: Images = field(repr=False)
    """(n, 3, H, W), the client's plain images; for scores alone."""
    note: str
    """What the round was, in words."""
    is_single: bool
    """Whether it is the best case: one image, one step."""


def rounds(config: Config, arm: str, weights: Arrays, scenes: Sequence[Scene]) -> list[Overheard]:
    """Let the real ClientApp train both rounds.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        weights: Weights of round 0 of its model.
        scenes: Images of one client; the best case trains on the first.

    Raises:
        InputError: As `overhear`.
        RunError: As `overhear`.
    """
    training = config.training
    trained = (
        f"{len(scenes)} images, {training.optimizer}, batches of {training.batch_size}, "
        f"{training.local_epochs} epoch{'s' if training.local_epochs > 1 else ''}, as trained"
    )
    single = config.model_copy(update={"training": training.model_copy(update=SINGLE)})
    return [
        _heard(single, arm, weights, scenes[:1], "one image, one step of gradient descent", True),
        _heard(config, arm, weights, scenes, trained, False),
    ]


def _heard(
    config: Config,
    arm: str,
    weights: Arrays,
    scenes: Sequence[Scene],
    note: str,
    is_single: bool,
) -> Overheard:
    exchange, truth = overhear(config, arm, weights, scenes)
    return Overheard(exchange, truth.plain, note, is_single)
