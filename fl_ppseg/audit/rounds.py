"""Rounds that the coordinator of an arm keeps: as trained, in its best case, and as an active one.

The best case of an honest but curious coordinator is a client with one image that takes one step of
plain gradient descent. An active one trains as agreed, for several rounds, with crafted weights;
its node has no trust region, for that would refuse such weights. With secure aggregation each keeps
the mean over several clients that train alike, and is judged by the images of the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fl_ppseg.audit.attacks.imprinting import imprinted, is_plain
from fl_ppseg.audit.attacks.neurons import kept
from fl_ppseg.audit.cohort import Cohort, Lots, cohort
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Client
from fl_ppseg.config.sections import Config
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import Images
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
UNCHECKED: Final = "on a node without a trust region: others refuse such weights"
"""Note on attacks that were measured on such a node."""
Kind = Literal["single", "trained", "imprinted"]


@dataclass(frozen=True, eq=False)
class Overheard:
    """The rounds of a client, or of several in sums, as the coordinator keeps them, and the true
    images of the first."""

    kind: Kind
    exchanges: tuple[Exchange, ...] = field(repr=False)
    """One; several of an active coordinator, none if the attack does not apply to the model."""
    truth: Images = field(repr=False)
    """(n, 3, H, W), the client's plain images, only for scoring."""
    note: str
    """Description of the rounds."""
    own: Images = field(repr=False)
    """(k, 3, H, W), public images as the model reads them."""


def rounds(
    config: Config,
    arm: str,
    network: SETR,
    own: Images,
    scenes: Sequence[Scene],
    num_imprinted: int,
    others: Lots | None = None,
) -> list[Overheard]:
    """Have the real ClientApp train all kinds of rounds.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        network: Its model, with the weights of round 0.
        own: (k, 3, H, W), public images as the model reads them.
        scenes: Images of one client; the best case trains on the first.
        num_imprinted: Rounds of an active coordinator.
        others: Images of clients whose updates are added to that client's; none: its own alone.

    Raises:
        InputError: As `Client`.
        RunError: As `Client.answer`.
    """
    single = config.model_copy(update={"training": config.training.model_copy(update=SINGLE)})
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    training, many = config.training, f"{len(scenes)} images"
    epochs = f"{training.local_epochs} epoch{'s' if training.local_epochs > 1 else ''}"
    as_trained = f"{many}, {training.optimizer}, batches of {training.batch_size}, {epochs}"
    lots = {scenes[0].city: scenes, **(others or {})}
    of_sum = f"sum over {len(lots)} clients: " if len(lots) > 1 else ""
    with cohort(single, arm, weights, {name: lot[:1] for name, lot in lots.items()}) as owner:
        note = f"{of_sum}one image{' each' if of_sum else ''}, one step of gradient descent"
        found = [Overheard("single", (owner.answer(weights),), owner.truth.plain, note, own)]
    as_trained = of_sum + as_trained
    with cohort(config, arm, weights, lots) as owner:
        usual = owner.answer(weights)
        images, note = owner.truth.plain, f"{as_trained}, as trained"
        found.append(Overheard("trained", (usual,), images, note, own))
        number = min(num_imprinted, config.federation.num_rounds) if is_plain(network) else 0
        num_images, last = sum(map(len, lots.values())), config.federation.num_rounds
        exchanges = _imprinted(owner, network, own, num_images, range(last - number + 1, last + 1))
    note = f"{as_trained}, {number} round{'s' if number > 1 else ''}; {UNCHECKED}"
    if not exchanges:
        note = f"{as_trained}; the attack applies to plain transformer blocks, not to these"
    return [*found, Overheard("imprinted", exchanges, images, note, own)]


def _imprinted(
    owner: Client | Cohort, network: SETR, own: Images, num_images: int, rounds: range
) -> tuple[Exchange, ...]:
    """Train rounds, the last ones of a run, which have the smallest steps."""
    public = {name: network.state_dict()[name].numpy().copy() for name in EMBEDDING_TENSORS}
    exchanges: list[Exchange] = []
    for round in rounds:
        exchange = owner.answer(imprinted(network, own, exchanges, num_images), round)
        # one adapted to a key gives the same tokens
        exchanges.append(kept(replace(exchange, sent=exchange.sent | public)))
    return tuple(exchanges)
