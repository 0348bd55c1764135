"""Local differential privacy: noise that a node adds to its own answers before they leave.

Every answer costs the same: it is a Gaussian mechanism of noise multiplier z, and n of them
together are one of mu = sqrt(n) / z (`fl_ppseg.privacy`). The ledger counts them before they are
computed, and what would cost more than the owner's budget is refused.

- `train`: the update of a round is clipped to a norm C and gets noise of standard deviation 2 C z
  on every weight. Any two sets of images change a clipped update by 2 C at most.
- `evaluate`: the exact counts of a held-out set are no private answer at any price: charged
  without noise, an epsilon would be a number without meaning. So each count gets noise of standard
  deviation sqrt(2) P z, P the pixels of the largest held-out label map: one image in place of
  another moves P counts from some cells to others, which is sqrt(2) P at most. Counts of few images
  then say little, which is the point; those of hundreds still give scores.

What epsilon promises is thus of one held-out or training image in place of another; of updates
it holds for all of a node's images at once. The loss, which is exact, does not leave. Not covered:
the number of images, their sizes, and the time that an answer takes.

Flower's LocalDpMod is not used: it refuses replies that hold fewer arrays than the request (every
arm that keeps its embedding at home), sets the noise by a bound that holds for epsilon < 1 and one
round, and draws it from NumPy's global generator.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from clients.policy import LocalPrivacy, RefusedError
from fl_ppseg.messages import Arrays
from fl_ppseg.privacy import noisy, standard_normal
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.updates import clipped, difference, moved


def check_form(names: Iterable[str], privacy: LocalPrivacy | None) -> None:
    """Find out, before the work, whether an update could leave with noise.

    Raises:
        RefusedError: It holds batch statistics, which noise could make negative.
    """
    if privacy is not None and any(is_buffer(name) for name in names):
        raise RefusedError("refused: batch statistics cannot take noise; ask for norm group")


def released(
    arrays: Arrays, start: Mapping[str, np.ndarray], privacy: LocalPrivacy | None
) -> Arrays:
    """Weights that may leave this node.

    Args:
        arrays: The weights after a local update.
        start: The weights before it; may hold more than those.
        privacy: What the owner demands; none: the weights leave as they are.

    Raises:
        RefusedError: As `check_form`.
    """
    if privacy is None:
        return arrays
    check_form(arrays, privacy)
    update = clipped(difference(arrays, start), privacy.clipping_norm)
    deviation = 2 * privacy.clipping_norm * privacy.noise_multiplier
    return moved({name: start[name] for name in arrays}, noisy(update, deviation))


def released_counts(
    counts: np.ndarray, sizes: Iterable[tuple[int, int]], privacy: LocalPrivacy | None
) -> np.ndarray:
    """Confusion counts that may leave this node.

    Args:
        counts: (num_classes, num_classes) int64, rows are the truth.
        sizes: Height and width of each held-out label map, in pixels.
        privacy: What the owner demands; none: the counts leave as they are.

    Returns:
        Counts of the same shape, none below 0.
    """
    if privacy is None:
        return counts
    num_pixels = max(height * width for height, width in sizes)
    deviation = math.sqrt(2) * num_pixels * privacy.noise_multiplier
    noise = deviation * standard_normal(counts.shape)
    return np.maximum(np.rint(counts + noise), 0).astype(np.int64)
