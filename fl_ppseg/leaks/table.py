"""What the attacks found, as data: leaks.json.

Every score of an attack stands beside three others of its arm: of the ciphertext itself, of the
thumbnail that anybody can take of it, and of the survivor network, the best found that restores
images from what provably survives. All are lower bounds of what leaks, each of the budget that
stands beside it. They lie between the ends of the audit: `nothing`, and `answer`, of a network that
has the true label map alone. What an attack has above the second is its excess: a difference of two
lower bounds, so a bound of nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from fl_ppseg.leaks.scores import Scores

Adversary = Literal[
    "ciphertext-thief", "known-plaintext", "node-thief", "coordinator", "active-coordinator"
]
ADVERSARIES: Final[tuple[Adversary, ...]] = get_args(Adversary)
MORE_THAN: Final[Mapping[Adversary, Adversary]] = {
    "known-plaintext": "ciphertext-thief",
    "node-thief": "ciphertext-thief",
}
"""Who holds all that another holds, and can run its attacks too.

An active coordinator is not among them: its rounds keep to the agreed settings of the training,
and what a listening one gets is its best case, one image and one step of gradient descent.
"""
LABEL_MAP: Final = "label-map"
"""Attack of a node's thief on label maps that lie in place."""
THUMBNAIL: Final = "thumbnail"
SURVIVORS: Final = "survivor-network"
"""Attacks beside which all others stand: what anybody can take, and what the best network found
restores from what provably survives. A better network, more images or steps may restore more."""
Picture = npt.NDArray[np.uint8]
"""(3, H, W)."""

TO_ITS_END: Final = "to its end"
"""Budget of an attack that has nothing to spend."""
SHIPPED_STEPS: Final = "shipped_steps"
"""In `effort`: training steps of the networks that ship, from which those of an audit start."""
SCHEMA: Final = 3
Budget = Literal["full", "quick", "other"]
"""How hard an audit tried: as it does by default, weaker for a first look, or otherwise."""
Maps = Literal["held-out", "training"]
"""Which label maps of a client: those that it evaluates on, or that it trains on."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One attack by one adversary on one arm."""

    attack: str
    adversary: Adversary
    scores: Scores | None
    """None where the attack returned no picture."""
    note: str
    """What it was run on and what came of it, in a sentence."""
    seconds: float
    budget: str = TO_ITS_END
    """How much it was given, in words."""
    excess: float | None = None
    """SSIM above that of the answer alone on the same images, negative where the answer tells more;
    None where the attack returned no picture."""
    key_recovered: float | None = None
    """Share of the key's parameters found, 0 to 1; None for an attack that looks for none."""
    picture: Picture | None = field(default=None, repr=False)
    """The first target as the attack restored it; not in the JSON."""


UNCHECKED: Final = "the model as agreed, on a node without a trust region"
"""`model` of an attack on label maps that shows what nodes refuse, and no node of today answers."""


@dataclass(frozen=True, eq=False)
class LabelFinding:
    """One attack on label maps of one client, which are not sent."""

    attack: str
    maps: Maps
    adversary: Adversary
    model: str
    """Whose model the requests were made for."""
    right: float | None
    """Share of labelled pixels that the guesses have right, 0 to 1; None without an answer."""
    certain: float
    """Share of labelled pixels that they have right and leave no doubt of."""
    without: float
    """What the most frequent class of each place has right, which anybody has without a request."""
    num_images: int
    num_requests: int
    """That the node answered."""
    note: str
    """Why it answered no more, in its own words; empty where all was told."""
    seconds: float


NO_WEIGHTS: Final = "no run was given, so there are no trained weights"


@dataclass(frozen=True)
class DirectSegmentation:
    """What an arm's own weights segment of its ciphertexts, without an attack.

    Both are mIoU in percent of the targets' label maps; None where the weights alone read no
    ciphertext, or where it was not measured.
    """

    miou: float | None
    """Of the newest weights, which nodes, coordinator and services have."""
    start: float | None
    """Of the weights of round 0, which are public."""
    note: str
    """Which weights, and of what; or why there is no figure."""


@dataclass(frozen=True, eq=False)
class ArmLeaks:
    """What every adversary got from one arm."""

    arm: str
    note: str
    protection: str
    """Key mode, cipher, block scope, embedding, in words."""
    ciphertext: Scores
    """The ciphertext as it is, taken for the image; of a plain arm the image itself."""
    survivors: Scores | None
    """The best survivor network found, of the budget of the audit: a lower bound of what provably
    survives; None where the cipher names no form."""
    findings: tuple[Finding, ...]
    ratio_to_plain: float | None = None
    """mIoU of the arm over that of `plain`, in the run that was audited."""
    labels: tuple[LabelFinding, ...] = ()
    """What was read of label maps through evaluations and updates."""
    direct: DirectSegmentation = DirectSegmentation(None, None, NO_WEIGHTS)
    """By the arm's own weights."""
    encrypted: Picture | None = field(default=None, repr=False)
    """The first target as the arm encrypts it; not in the JSON."""

    @property
    def has_label_maps(self) -> bool:
        """Whether a thief of its node gets label maps in place."""
        return any(found.attack == LABEL_MAP for found in self.findings)

    def best(self, adversary: Adversary) -> Finding | None:
        """The finding with the highest SSIM within an adversary's reach; None without a picture."""
        able = (adversary, MORE_THAN.get(adversary))
        scored = [f for f in self.findings if f.adversary in able and f.scores is not None]
        return max(scored, key=lambda f: f.scores.ssim if f.scores else 0.0, default=None)


@dataclass(frozen=True, eq=False)
class LeakTable:
    """A whole audit."""

    source: str
    """Which images, in words: `procedural scenes`, `your own data`."""
    num_targets: int
    image_size: tuple[int, int]
    block_size: int
    nothing: Scores
    """A network that sees nothing of the target and knows what streets look like."""
    answer: Scores
    """The answer alone: a network of the same budget that sees the true label map of the target
    and nothing else of it, as of a published segmentation or a service's answer without error."""
    plain_miou: float | None
    """What the task score's segmenter reaches on the images themselves, percent."""
    seconds: float
    arms: tuple[ArmLeaks, ...]
    budget: Budget = "full"
    effort: Mapping[str, int] = field(default_factory=dict)
    """The numbers behind the budget: images, rounds, steps, requests."""
    made: Mapping[str, str] = field(default_factory=dict)
    """How the result was made: config, seed, rounds, version, commit."""
    summed: int = 1
    """Clients over whose updates the coordinators see the sum; 1: they see single updates."""
    key_search: str | None = None
    """What a search of the run's files for key material found; None where none was made."""
    targets: tuple[Picture, ...] = field(default=(), repr=False)
    """The first target, plain, where it may be shown; not in the JSON."""

    def to_json(self) -> str:
        """The table without its pictures."""
        values = {"schema": SCHEMA, **_without_pictures(asdict(self))}
        return json.dumps(values, indent=1) + "\n"


def _without_pictures(values: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"picture", "encrypted", "targets"}
    kept = {name: value for name, value in values.items() if name not in hidden}
    return {
        name: [_without_pictures(v) for v in value]
        if name in ("arms", "findings", "labels")
        else value
        for name, value in kept.items()
    }
