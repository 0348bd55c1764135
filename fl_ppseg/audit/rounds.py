"""Rounds that the coordinator of an arm keeps: as the arm is trained, its best case, and its own.

The best case for a coordinator that only listens is a client with one image that takes one step of
plain gradient descent. An active one trains as agreed, for several rounds, with weights that are
made to show images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fl_ppseg.audit.attacks.imprinting import imprinted
from fl_ppseg.audit.attacks.neurons import kept
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.scores import Images
from fl_ppseg.audit.update import overhear
from fl_ppseg.config import Config
from fl_ppseg.dataset import Scene
from fl_ppseg.messages import Arrays
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS

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
Kind = Literal["single", "trained", "imprinted"]


@dataclass(frozen=True, eq=False)
class Overheard:
    """One client's rounds as its coordinator keeps them, and what the images were."""

    kind: Kind
    exchanges: tuple[Exchange, ...] = field(repr=False)
    """One; several where the coordinator is active."""
    truth: Images = field(repr=False)
    """(n, 3, H, W), the client's plain images; for scores alone."""
    note: str
    """What the rounds were, in words."""


def rounds(
    config: Config,
    arm: str,
    network: SETR,
    own: Images,
    scenes: Sequence[Scene],
    num_imprinted: int,
) -> list[Overheard]:
    """Let the real ClientApp train all of them.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        network: Its model, with the weights of round 0.
        own: (k, 3, H, W), the coordinator's own images, as the model reads them.
        scenes: Images of one client; the best case trains on the first.
        num_imprinted: Rounds of an active coordinator.

    Raises:
        InputError: As `overhear`.
        RunError: As `overhear`.
    """
    single = config.model_copy(update={"training": config.training.model_copy(update=SINGLE)})
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    training, many = config.training, f"{len(scenes)} images"
    epochs = f"{training.local_epochs} epoch{'s' if training.local_epochs > 1 else ''}"
    as_trained = f"{many}, {training.optimizer}, batches of {training.batch_size}, {epochs}"
    return [
        _heard(
            single, arm, weights, scenes[:1], "single", "one image, one step of gradient descent"
        ),
        _heard(config, arm, weights, scenes, "trained", f"{as_trained}, as trained"),
        _imprinted(config, arm, network, own, scenes, num_imprinted, as_trained),
    ]


def _heard(
    config: Config, arm: str, weights: Arrays, scenes: Sequence[Scene], kind: Kind, note: str
) -> Overheard:
    exchange, truth = overhear(config, arm, weights, scenes)
    return Overheard(kind, (exchange,), truth.plain, note)


def _imprinted(
    config: Config,
    arm: str,
    network: SETR,
    own: Images,
    scenes: Sequence[Scene],
    number: int,
    as_trained: str,
) -> Overheard:
    """The last rounds, in which the steps are the smallest."""
    last = config.federation.num_rounds
    public = {name: network.state_dict()[name].numpy().copy() for name in EMBEDDING_TENSORS}
    exchanges: list[Exchange] = []
    for round in range(max(1, last - number + 1), last + 1):
        made = imprinted(network, own, exchanges)
        exchange, truth = overhear(config, arm, made, scenes, round=round)
        # one adapted to a key gives the same tokens
        exchanges.append(kept(replace(exchange, sent=exchange.sent | public)))
    note = f"{as_trained}, {len(exchanges)} round{'s' if len(exchanges) > 1 else ''}"
    return Overheard("imprinted", tuple(exchanges), truth.plain, note)
