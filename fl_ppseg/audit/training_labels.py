"""Training label maps that a coordinator recovers from updates of the real ClientApp, and scores.

The same coordinators as in `labels`: one requests a model of its own choice, as far as the owner's
policy allows; one keeps to the model and the number of rounds that were agreed to; one also moves
its weights into the node's trust region. A node without one is the positive control.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fl_ppseg.audit.attacks.label_map_reading import IGNORED, Floats, Labels, prior, usual
from fl_ppseg.audit.attacks.label_update import first_batch, label_update
from fl_ppseg.audit.attacks.label_weights import LabelWeights, is_readable
from fl_ppseg.audit.cohort import Cohort, Lots, cohort
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.labels import AGREED, OWN, WITHIN, arrays_of, moved_in
from fl_ppseg.audit.update import Client
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import Images
from fl_ppseg.leaks.table import UNCHECKED, LabelFinding
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.model import SETR

ATTACK: Final = "label-update"
FINE_HEAD: Final[Mapping[str, object]] = {
    "decoder": "pup",
    "decoder_channels": 256,
    "num_convs": 2,
    "norm": "group",
    "num_auxiliary": 0,
    "dropout": 0.0,
    "weights": None,
}
"""Channels of a model of its own choice: as many inputs times taps as a small image has places."""
FINE_BODY: Final[Mapping[str, object]] = {
    "backbone": "vit",
    "patch_size": 2,
    "embed_dim": 64,
    "depth": 1,
    "num_heads": 1,
    "up_scale": 1,
}
"""A token for 2x2 pixels, and places as fine; where the embedding is not the node's own."""


@dataclass(frozen=True, eq=False)
class UpdateAttack:
    """Attacks of the coordinator of one arm on a node's training label maps.

    Args:
        config: Experiment with the arm.
        arm: Its id.
        network: Its model, with the weights of round 0.
        own: (k, 3, H, W), public images as the model reads them.
        public_labels: (n, H, W) public trainIds.
        num_rounds: Most updates requested with each model.
        seed: Seed of the run.
    """

    config: Config
    arm: str
    network: SETR = field(repr=False)
    own: Images = field(repr=False)
    public_labels: Labels = field(repr=False)
    num_rounds: int
    seed: int = 0

    def findings(
        self, scenes: Sequence[Scene], others: Lots | None = None
    ) -> tuple[LabelFinding, ...]:
        """Attack the training label maps of one client with every variant.

        Args:
            scenes: Its images.
            others: Images of clients whose updates are added to that client's.

        Raises:
            InputError: As `Client`.
        """
        weights = arrays_of(self.network)
        lots = {scenes[0].city: scenes, **(others or {})}
        asked = self.config, self.arm, weights, lots
        own, agreed, within = self.variants()
        with cohort(*asked, start=weights, seed=self.seed) as owner:
            found = [self.tried(owner, *variant) for variant in (own, agreed, within)]
        with cohort(*asked, seed=self.seed) as owner:
            return (*found, self.tried(owner, UNCHECKED, *agreed[1:]))

    def variants(self) -> list[tuple[str, ModelConfig, dict[str, Any]]]:
        """Name and model of each variant, and the fields of its requests not agreed to."""
        arm = arms_of(self.config)[self.arm]
        agreed = model_settings(self.config.model, self.arm, arm)
        values = {**agreed.model_dump(), **FINE_HEAD}
        if arm.embedding != "private":  # whose shape is the node's
            form = None if agreed.invariant is None else "pixels"
            values |= {**FINE_BODY, "invariant": form}
        section = ModelConfig.model_validate(values)
        return [(OWN, section, {"model": section}), (AGREED, agreed, {}), (WITHIN, agreed, {})]

    def tried(
        self, owner: Client | Cohort, model: str, section: ModelConfig, other: Mapping[str, Any]
    ) -> LabelFinding:
        """Attack one client with one model.

        Args:
            owner: The client, with training images, or several whose updates are added.
            model: What the model is called.
            section: The model.
            other: Fields of the requests that were not agreed to.
        """
        started, truth = time.monotonic(), owner.truth.labels
        likely = prior(self.public_labels, self._num_classes, truth.shape[1:])
        maps = np.stack([usual(likely)] * len(truth))
        without, certain = right_share(truth, maps), np.full_like(maps, IGNORED)
        network = self.network
        if other:
            network = build_architecture(section, self._num_classes, self.config.data.image_size)
        exchanges: list[Exchange] = []
        weights: list[LabelWeights] = []
        reason = "the attack applies to PUP decoders with two channels per class, not to this"
        if is_readable(network):
            exchanges, weights, reason = self._asked(owner, network, other, model == WITHIN)
        if exchanges:
            maps, certain = self._read(owner, exchanges, weights, likely)
        return LabelFinding(
            attack=ATTACK,
            maps="training",
            adversary="active-coordinator",
            model=model,
            right=right_share(truth, maps) if exchanges else None,
            certain=right_share(truth, certain),
            without=without,
            num_images=len(truth),
            num_requests=len(exchanges),
            note=reason,
            seconds=round(time.monotonic() - started, 2),
        )

    @property
    def _num_classes(self) -> int:
        return len(self.network.state_dict()["decoder.classifier.conv.weight"])

    def _asked(
        self, owner: Client | Cohort, network: SETR, other: Mapping[str, Any], is_moved: bool
    ) -> tuple[list[Exchange], list[LabelWeights], str]:
        """Request round after round, until the node refuses the model.

        With weights moved into the trust region the last rounds are requested, where it is
        largest.
        """
        exchanges: list[Exchange] = []
        used: list[LabelWeights] = []
        if other:  # otherwise no weights can be crafted
            answer = owner.trained(arrays_of(network), **other)
            if isinstance(answer, str):
                return exchanges, used, answer
        weights, last = LabelWeights(network, self.own), self.config.federation.num_rounds
        rounds = range(1, last + 1)[: self.num_rounds]
        for round in range(1, last + 1)[-self.num_rounds :] if is_moved else rounds:
            asked = weights
            if is_moved:
                asked = weights.moved_to(moved_in(weights.made, owner, round - 1))
            answer = owner.trained(asked.made, round, **other)
            if isinstance(answer, str):
                return exchanges, used, answer
            exchanges.append(answer)
            used.append(asked)
        return exchanges, used, ""

    def _read(
        self,
        owner: Client | Cohort,
        exchanges: Sequence[Exchange],
        weights: Sequence[LabelWeights],
        likely: Floats,
    ) -> tuple[Labels, Labels]:
        height, width = likely.shape[1:]
        at_logits = self.config.training.loss_size == "logits"
        loss_size = weights[0].logits if at_logits else (height, width)
        sums = [made.counts(e, loss_size) for made, e in zip(weights, exchanges, strict=True)]
        batches = [self._first_steps(owner.name, exchange) for exchange in exchanges]
        coarse = prior(self.public_labels, len(likely), sums[0].shape[1:])
        num = len(owner.truth.labels)
        return label_update(sums, batches, coarse, (height, width), num)

    def _first_steps(self, client: str, exchange: Exchange) -> Floats:
        """(n,), how often each image counts in what the first steps of all clients tell."""
        size, weights = self.config.training.batch_size, []
        clients = exchange.summed or {client: exchange.num_examples}
        for name, num in clients.items():
            batch = first_batch(self.seed, exchange.round, name, num, size)
            weights.append(batch * num / batch.sum())  # the client's mean, weighted by its images
        num_met = sum(min(size, num) for num in clients.values())
        return np.concatenate(weights) * num_met / exchange.num_examples


def right_share(truth: Labels, maps: Labels) -> float:
    """Share of all labelled pixels that are right, image by image."""
    labelled = truth != IGNORED
    return float((labelled & (truth == maps)).sum() / max(int(labelled.sum()), 1))
