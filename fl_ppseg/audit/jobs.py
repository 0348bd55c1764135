"""What the plan of an audit is made of: attempts, and the jobs that make them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fl_ppseg.audit.attacks.undoing import KeyGuess
from fl_ppseg.leaks.scores import Images
from fl_ppseg.leaks.table import TO_ITS_END, Adversary

Guess = Images | KeyGuess | None
"""What an attack returns; None: it found nothing to begin at."""
Attack = Callable[[], Guess]
"""An attack with what its adversary holds, bound; picklable."""

STATISTICS_SECONDS: Final = 6.0
IMPRINT_SECONDS: Final = 12.0
SEARCH_SECONDS: Final = 20.0
NETWORK_SECONDS: Final = 75.0
MATCHING_SECONDS: Final = 90.0
"""At most, roughly; the longest begin first, and all of these run beside each other."""


@dataclass(frozen=True, eq=False)
class Attempt:
    """One attack by one adversary on what arms have in common."""

    attack: str
    adversary: Adversary
    arms: tuple[str, ...]
    """The arms whose targets it reconstructs."""
    truth: Images = field(repr=False)
    """(n, 3, H, W), what is to be reconstructed."""
    note: str
    """What it is run on."""
    is_in_order: bool = True
    """Whether guess k is one at image k; else they are guesses at any of the images."""
    budget: str = TO_ITS_END
    """How much it is given, in words."""


@dataclass(frozen=True, eq=False)
class Job:
    """What is run at once: an attack, or several that share the training of a network."""

    attempts: tuple[Attempt, ...]
    run: Callable[[], tuple[Guess, ...]] = field(repr=False)
    """A guess for each attempt; picklable."""
    seconds: float = 1.0

    @classmethod
    def of(cls, attempt: Attempt, attack: Attack, seconds: float = 1.0) -> "Job":
        """An attack alone."""
        return cls((attempt,), partial(_alone, attack), seconds)


def _alone(attack: Attack) -> tuple[Guess, ...]:
    return (attack(),)
