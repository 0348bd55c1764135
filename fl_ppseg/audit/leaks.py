"""What the attacks found, as data: leaks.json.

Every score of an attack stands beside three others: of the ciphertext itself, of the thumbnail that
anybody can take of it, and of the floor, what a network restores from what provably survives.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from fl_ppseg.audit.scores import Scores

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
THUMBNAIL: Final = "thumbnail"
FLOOR: Final = "survivor-network"
"""Attacks beside which all others stand: what anybody can take, and what no cipher can hide."""
Picture = npt.NDArray[np.uint8]
"""(3, H, W)."""

SCHEMA: Final = 1


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
    key_recovered: float | None = None
    """Share of the key's parameters found, 0 to 1; None for an attack that looks for none."""
    picture: Picture | None = field(default=None, repr=False)
    """The first target as the attack restored it; not in the JSON."""


@dataclass(frozen=True, eq=False)
class LabelFinding:
    """One attack on label maps that are not sent: those of the held-out images of one client."""

    attack: str
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


@dataclass(frozen=True, eq=False)
class ArmLeaks:
    """What every adversary got from one arm."""

    arm: str
    note: str
    protection: str
    """Key mode, cipher, block scope, embedding, in words."""
    ciphertext: Scores
    """The ciphertext as it is, taken for the image; of a plain arm the image itself."""
    floor: Scores | None
    """A network that is given what provably survives; None where the cipher names no form."""
    findings: tuple[Finding, ...]
    ratio_to_plain: float | None = None
    """mIoU of the arm over that of `plain`, in the run that was audited."""
    encrypted: Picture | None = field(default=None, repr=False)
    """The first target as the arm encrypts it; not in the JSON."""

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
    plain_miou: float | None
    """What the task score's segmenter reaches on the images themselves, percent."""
    seconds: float
    arms: tuple[ArmLeaks, ...]
    key_search: str | None = None
    """What a search of the run's files for key material found; None where none was made."""
    targets: tuple[Picture, ...] = field(default=(), repr=False)
    """The first target, plain, where it may be shown; not in the JSON."""

    def to_json(self) -> str:
        """The table without its pictures."""
        values = {"schema": SCHEMA, **_without_pictures(asdict(self))}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The table that `to_json` wrote, without pictures.

        Raises:
            ValueError: It is of another schema.
        """
        values = json.loads(text)
        if values.pop("schema", None) != SCHEMA:
            raise ValueError(f"a leak table of another schema than {SCHEMA}")
        arms = tuple(_arm(arm) for arm in values.pop("arms"))
        nothing, size = _scores(values.pop("nothing")), tuple(values.pop("image_size"))
        return cls(arms=arms, nothing=nothing, image_size=size, **values)


def _without_pictures(values: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"picture", "encrypted", "targets"}
    kept = {name: value for name, value in values.items() if name not in hidden}
    return {
        name: [_without_pictures(v) for v in value] if name in ("arms", "findings") else value
        for name, value in kept.items()
    }


def _scores(values: Mapping[str, Any] | None) -> Any:
    return None if values is None else Scores(**values)


def _arm(values: dict[str, Any]) -> ArmLeaks:
    findings = tuple(
        Finding(**(found | {"scores": _scores(found["scores"])}))
        for found in values.pop("findings")
    )
    scores = {name: _scores(values.pop(name)) for name in ("ciphertext", "floor")}
    return ArmLeaks(findings=findings, **scores, **values)
