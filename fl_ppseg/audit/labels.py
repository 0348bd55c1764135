"""Label maps that a coordinator recovers from evaluations of the real ClientApp, and their scores.

Three coordinators: one requests a model of its own choice, as far as the owner's policy allows; one
keeps to the model, the classes and the number of evaluations that the owner agreed to; one also
moves its weights into the node's trust region, and requests late rounds, in which that is largest.
A node without a trust region is the positive control.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from clients.policy.start_weights import read_start
from clients.policy.trust_region import change_between, project_onto_region
from fl_ppseg.audit.attacks.evaluation_oracle import Recovered, evaluation_oracle
from fl_ppseg.audit.attacks.inputs import load
from fl_ppseg.audit.attacks.label_map_reading import Counts, prior, usual
from fl_ppseg.audit.attacks.label_oracle import Oracle, is_readable
from fl_ppseg.audit.cohort import Cohort
from fl_ppseg.audit.update import Client, client
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.dataset import Scene
from fl_ppseg.federation.message_fields import MAX_CLASSES
from fl_ppseg.leaks.scores import Images
from fl_ppseg.leaks.table import UNCHECKED, LabelFinding
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays

Labels = npt.NDArray[np.uint8]

ATTACK: Final = "evaluation-oracle"
OWN, AGREED = "a model of its own", "the model as agreed"
WITHIN = "the model as agreed, moved into the trust region"
IGNORED: Final = 255
NUM_HELDOUT: Final = 2
"""Held-out images of the client: as many as a small one has."""
NUM_TRAINED: Final = 16
"""Training images that its trust region is computed for."""
NUM_LOOKED_AT: Final = 8
"""Public images that the coordinator calibrates the images' numbers on."""
NUM_CLASSES: Final = MAX_CLASSES
"""Classes of a model of its own choice, bins of a request: as many as a message may hold."""
FINEST: Final[Mapping[str, object]] = {
    "backbone": "vit",
    "embed_dim": 48,
    "depth": 1,
    "num_heads": 1,
    "decoder": "naive",
    "decoder_channels": 40,
    "num_convs": 1,
    "up_scale": 1,
    "norm": "batch",
    "weights": None,
}
"""A model of its own choice; `finest_patch` gives its patches."""
MOST_TOKENS: Final = 2**15
"""Most tokens of such a model: attention is quadratic in them."""


@dataclass(frozen=True, eq=False)
class LabelAttack:
    """Attacks of the coordinator of one arm on a node's held-out label maps.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        network: Its model, with the weights of round 0.
        own: (k, 3, H, W), public images as the model reads them.
        public_labels: (n, H, W) public trainIds.
        num_requests: Most requests with each model.
        num_classes: Classes of a model of its own choice.
    """

    config: Config
    arm: str
    network: SETR = field(repr=False)
    own: Images = field(repr=False)
    public_labels: Labels = field(repr=False)
    num_requests: int
    num_classes: int = NUM_CLASSES

    def findings(self, scenes: Sequence[Scene]) -> tuple[LabelFinding, ...]:
        """Attack the held-out label maps of one client with every variant.

        Args:
            scenes: Its images: the first one to train on, the others held out.

        Raises:
            InputError: As `client`.
        """
        weights = arrays_of(self.network)
        one, others = scenes[:1], scenes[1:]
        with client(
            self.config,
            self.arm,
            weights,
            one,
            heldout=others,
            start=weights,
            num_trained=NUM_TRAINED,
        ) as owner:
            found = [self.tried(owner, *variant) for variant in self.variants()]
        with client(self.config, self.arm, weights, one, heldout=others) as owner:
            return (*found, self.tried(owner, UNCHECKED, self.network, {}))

    def variants(self) -> list[tuple[str, SETR, dict[str, Any]]]:
        """Name and model of each variant, and the fields of its requests not agreed to."""
        arm = arms_of(self.config)[self.arm]
        section = model_settings(self.config.model, self.arm, arm)
        if arm.embedding != "private":  # whose shape is the node's
            form = None if section.invariant is None else "pixels"
            patch = finest_patch(self.config.data.image_size)
            section = ModelConfig.model_validate({**FINEST, "patch_size": patch, "invariant": form})
        other = {"model": section, "num_classes": self.num_classes}
        network = build_architecture(section, self.num_classes, self.config.data.image_size)
        if arm.embedding == "private":
            load(network, {n: self.network.state_dict()[n].numpy() for n in EMBEDDING_TENSORS})
        return [(OWN, network, other), (AGREED, self.network, {}), (WITHIN, self.network, {})]

    def tried(
        self, owner: Client, model: str, network: SETR, other: Mapping[str, Any]
    ) -> LabelFinding:
        """Attack one client with one model.

        Args:
            owner: The client, with held-out images.
            model: What the model is called.
            network: The model.
            other: Fields of the requests that were not agreed to.
        """
        started = time.monotonic()
        truth = owner.truth.heldout
        node = _Node(owner, other, self.config.federation.num_rounds, model == WITHIN)
        size = truth[0].shape[0], truth[0].shape[1]
        likely = prior(self.public_labels, _num_classes(self.network), size)
        without = np.stack([usual(likely)] * len(truth))
        found = Recovered(without, np.full_like(without, IGNORED), 0)
        if not is_readable(network):
            node.reason = "the attack applies to naive and PUP decoders, not to this model"
        elif not other or node.ask(arrays_of(network)) is not None:  # else it does not apply
            oracle = Oracle(network, self.own[:NUM_LOOKED_AT])
            most = self.num_requests
            found = evaluation_oracle(node.ask, oracle, likely, len(truth), most, node.limit)
        right, certain = matched(truth, found)
        return LabelFinding(
            attack=ATTACK,
            maps="held-out",
            adversary="active-coordinator",
            model=model,
            right=right if found.num_requests else None,
            certain=certain,
            without=matched(truth, Recovered(without, found.certain, 0))[0],
            num_images=len(truth),
            num_requests=found.num_requests,
            note=node.reason,
            seconds=round(time.monotonic() - started, 2),
        )


def moved_in(weights: Arrays, owner: Client | Cohort, num_rounds: int) -> Arrays:
    """Move weights to the nearest that a client's node accepts as those after so many rounds: into
    its trust region, and within what may change since earlier ones; unchanged if it compares none.
    """
    agreed = owner.agreed_policy
    if agreed.start is None or agreed.max_change is None:
        return weights
    start, change = read_start(*agreed.start.values()), change_between(agreed, 0, num_rounds)
    near = project_onto_region(weights, start, change, agreed.training)
    before = owner.accepted_before(num_rounds)
    if before is None:
        return near
    number, centre = before
    change = change_between(agreed, number, num_rounds)
    return project_onto_region(near, start, change, agreed.training, centre)


class _Node:
    """Sends requests to a client, round after round, without those rounds that it refused.

    Args:
        owner: The client.
        other: Fields of the requests that were not agreed to.
        num_rounds: Of the run.
        is_moved: Whether weights are moved to what the node accepts.
    """

    def __init__(
        self, owner: Client, other: Mapping[str, Any], num_rounds: int, is_moved: bool
    ) -> None:
        self._owner, self._other, self._is_moved = owner, other, is_moved
        first = num_rounds - self._fewest_rounds() + 1 if is_moved else 1
        self._rounds = iter(range(max(first, 1), num_rounds + 1))
        self._round: int | None = next(self._rounds)
        self._left = self._most_in_round()
        self.reason = ""
        """The node's last refusal."""

    def limit(self, weights: Arrays) -> Arrays:
        """Move weights to the nearest that the node accepts in this round."""
        if not self._is_moved or self._round is None:
            return weights
        return moved_in(weights, self._owner, self._round)

    def ask(self, weights: Arrays) -> Counts | None:
        while self._round is not None:
            answer = self._owner.counts(weights, self._round, **self._other)
            if not isinstance(answer, str):
                self._left -= 1
                if self._is_moved and self._left == 0:
                    self._next_round()
                return answer
            self.reason = answer
            self._next_round()
        return None

    def _next_round(self) -> None:
        self._round = next(self._rounds, None)
        self._left = self._most_in_round()

    def _most_in_round(self) -> int:
        """Questions that the node answers in the round; other weights are compared with those of an
        earlier round, so that there is one in the first."""
        agreed = self._owner.agreed_policy
        is_first = self._round is None or self._owner.accepted_before(self._round) is None
        return 1 if is_first else agreed.models + agreed.spare

    def _fewest_rounds(self) -> int:
        """The fewest rounds in which all questions are answered: late ones allow the most."""
        agreed = self._owner.agreed_policy
        total = agreed.evaluations * agreed.models + agreed.spare
        return 1 + -(-(total - 1) // (agreed.models + agreed.spare))


def matched(truth: Sequence[Labels], found: Recovered) -> tuple[float, float]:
    """Shares of all labelled pixels that are right, and that are both certain and right.

    Maps and guesses are matched one to one to maximise the number of right pixels.

    Args:
        truth: (h, w) trainIds each.
        found: As many guesses, in any order.
    """
    right = np.array([[np.sum((t == g) & (t != IGNORED)) for g in found.maps] for t in truth])
    rows, columns = linear_sum_assignment(right, maximize=True)
    sure = [
        np.sum((truth[row] == found.certain[column]) & (truth[row] != IGNORED))
        for row, column in zip(rows, columns, strict=True)
    ]
    num_labelled = max(sum(int(np.sum(one != IGNORED)) for one in truth), 1)
    return float(right[rows, columns].sum() / num_labelled), float(sum(sure) / num_labelled)


def finest_patch(size: tuple[int, int]) -> int:
    """Side of the smallest patches of which an image has at most `MOST_TOKENS`.

    >>> finest_patch((64, 128)), finest_patch((512, 1024))
    (1, 4)
    """
    height, width = size
    sides = (side for side in (1, 2, 4, 8, 16) if height % side == 0 and width % side == 0)
    fits = [side for side in sides if height * width <= MOST_TOKENS * side**2]
    return fits[0] if fits else math.gcd(height, width)


def arrays_of(network: SETR) -> Arrays:
    """The weights of a model, as in requests."""
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def _num_classes(network: SETR) -> int:
    return len(network.state_dict()["decoder.classifier.conv.weight"])
