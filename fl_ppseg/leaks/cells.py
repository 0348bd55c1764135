"""Cells of the leak matrix: what the best attack of each adversary got from each arm."""

from dataclasses import dataclass
from typing import Final

from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import (
    ADVERSARIES,
    MORE_THAN,
    THUMBNAIL,
    Adversary,
    ArmLeaks,
    Finding,
    LeakTable,
)

IS_THE_IMAGE: Final = 0.9995
"""SSIM from which a ciphertext is taken for the image: nothing was encrypted."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One arm before one adversary."""

    arm: ArmLeaks
    adversary: Adversary

    @property
    def best(self) -> Finding | None:
        """The attack that came nearest; None where none returned a picture."""
        return self.arm.best(self.adversary)

    @property
    def reached(self) -> tuple[Finding, ...]:
        """What this adversary ran, and those whose attacks it can run too."""
        able = (self.adversary, MORE_THAN.get(self.adversary))
        return tuple(found for found in self.arm.findings if found.adversary in able)

    @property
    def key(self) -> float | None:
        """The largest share of the key's parameters that an attack found; None if none looked."""
        shares = [found.key_recovered for found in self.reached]
        return max((share for share in shares if share is not None), default=None)


def row(arm: ArmLeaks) -> tuple[Cell, ...]:
    """An arm before every adversary, in their order."""
    return tuple(Cell(arm, adversary) for adversary in ADVERSARIES)


def column(table: LeakTable, adversary: Adversary) -> tuple[Cell, ...]:
    """An adversary before every arm that it attacked."""
    cells = (Cell(arm, adversary) for arm in table.arms)
    return tuple(cell for cell in cells if cell.reached)


def finding(arm: ArmLeaks, attack: str) -> Finding | None:
    """What an attack got from an arm, whoever ran it; None if nobody did."""
    return next((found for found in arm.findings if found.attack == attack), None)


def thumbnail(arm: ArmLeaks) -> Scores | None:
    """How near the thumbnail comes; None if none was made."""
    found = finding(arm, THUMBNAIL)
    return None if found is None else found.scores


def is_encrypted(arm: ArmLeaks) -> bool:
    """Whether a ciphertext of the arm is anything but the image itself."""
    return arm.ciphertext.ssim < IS_THE_IMAGE
