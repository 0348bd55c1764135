"""Local differential privacy: noise that a node adds to its own updates before they leave.

The update of a round is clipped to a norm C and gets Gaussian noise of standard deviation 2 C z on
every weight. Any two sets of images change a clipped update by 2 C at most, so that n rounds tell
the coordinator of them what n Gaussian mechanisms of noise multiplier z do. A ledger counts the
updates that left; one that would cost more than the owner's budget is refused. Losses, numbers of
images and the counts of an evaluation are not covered.

Flower's LocalDpMod is not used: it refuses replies that hold fewer arrays than the request (every
arm that keeps its embedding at home), sets the noise by a bound that holds for epsilon < 1 and one
round, and draws it from NumPy's global generator.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clients.policy import LocalPrivacy, RefusedError
from fl_ppseg.messages import Arrays
from fl_ppseg.privacy import epsilon, noisy
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.updates import clipped, difference, moved

logger = logging.getLogger(__name__)


def released(
    arrays: Arrays, start: Mapping[str, np.ndarray], privacy: LocalPrivacy | None
) -> Arrays:
    """Weights that may leave this node.

    Args:
        arrays: The weights after a local update.
        start: The weights before it; may hold more than those.
        privacy: What the owner demands; none: the weights leave as they are.

    Raises:
        RefusedError: If another update would exceed the owner's budget, or if the weights hold
            batch statistics, which noise could make negative.
    """
    if privacy is None:
        return arrays
    if any(is_buffer(name) for name in arrays):
        raise RefusedError("refused: batch statistics cannot take noise; ask for norm group")
    _count(privacy)
    update = clipped(difference(arrays, start), privacy.clipping_norm)
    deviation = 2 * privacy.clipping_norm * privacy.noise_multiplier
    return moved({name: start[name] for name in arrays}, noisy(update, deviation))


def _count(privacy: LocalPrivacy) -> None:
    """Note an update before it leaves: one that is lost on its way counts as well."""
    spent = _num_lines(privacy.ledger)
    cost = epsilon(spent + 1, privacy.noise_multiplier, privacy.delta)
    if cost > privacy.max_epsilon:
        raise RefusedError(
            f"refused: the owner's privacy budget is spent after {spent} updates "
            f"(epsilon {privacy.max_epsilon:g} at delta {privacy.delta:g})"
        )
    with privacy.ledger.open("a", encoding="utf-8") as file:
        file.write(f"{cost:.6g}\n")
        file.flush()
        os.fsync(file.fileno())
    logger.info("update %d leaves: epsilon %.3g at delta %g", spent + 1, cost, privacy.delta)


def _num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
