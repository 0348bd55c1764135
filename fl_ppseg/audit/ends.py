"""The ends beside which all scores of an audit stand, as jobs of the same network and budget.

nothing           a network without input: what needs no image of the owner
the answer alone  a network that sees the true label map of a target and nothing else of it: what a
                  published segmentation, or an answer of a service without an error, tells
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Self

import numpy as np

from fl_ppseg.audit.attacks.label_map import answer_network
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import nothing
from fl_ppseg.audit.jobs import NETWORK_SECONDS, Attack, Attempt, Job
from fl_ppseg.audit.material import Scenes
from fl_ppseg.audit.running import Attacked
from fl_ppseg.leaks.scores import Images


@dataclass(frozen=True, eq=False)
class Ends:
    """What both networks make of the targets."""

    nothing: Images = field(repr=False)
    """(n, 3, H, W), the same guess at each of them."""
    answer: Images = field(repr=False)
    """(n, 3, H, W), restored from their label maps alone."""

    @classmethod
    def of(cls, blind: Attacked, answered: Attacked) -> Self:
        """From the results of the jobs of `ends`, in their order."""
        assert blind.images is not None and answered.images is not None
        return cls(np.repeat(blind.images, len(answered.images), axis=0), answered.images)


def ends(scenes: Scenes, block_size: int, num_classes: int, budget: Budget) -> tuple[Job, Job]:
    """The jobs of both ends, one of each per audit.

    Args:
        scenes: Images of the audit.
        block_size: Side M of a block in pixels.
        num_classes: Classes of the label maps.
        budget: Of the networks.
    """
    blind: Attack = partial(nothing, scenes.public, block_size=block_size, budget=budget)
    answer: Attack = partial(
        answer_network,
        *(scenes.public, scenes.public_labels, scenes.labels),
        num_classes=num_classes,
        block_size=block_size,
        budget=budget,
    )
    return _job("nothing", blind, scenes), _job("answer-network", answer, scenes)


def _job(name: str, run: Attack, scenes: Scenes) -> Job:
    note = f"trained on {len(scenes.public)} public images"
    attempt = Attempt(name, "ciphertext-thief", (), scenes.targets, note)
    return Job.of(attempt, run, NETWORK_SECONDS)
