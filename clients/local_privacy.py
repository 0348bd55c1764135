"""Local differential privacy: noise that a node adds to its own answers before they leave.

Every answer costs the same: it is a Gaussian mechanism with noise multiplier z, and n of them
together are one with mu = sqrt(n) / z (`fl_ppseg.learning.privacy`). The ledger counts them before
they are computed, and an answer that would exceed the owner's budget is refused.

- `train`: the update of a round is clipped to a norm C and gets noise of standard deviation 2 C z
  on every weight. Any two sets of images change a clipped update by at most 2 C.
- `evaluate`: exact counts of a held-out set have unbounded epsilon. So each count gets noise of
  standard deviation sqrt(2) P z, with P the pixels of the largest held-out label map: replacing one
  image moves P counts from some cells to others, which is at most sqrt(2) P. Counts of few images
  then say little, as intended; those of hundreds still give scores. The (noisy) sums of the rows
  are the same each time, because the coordinator checks that a client's label counts do not change.

For evaluations, epsilon is thus for the replacement of one held-out image; for updates, it holds
for all of a node's images at once. The loss, which is exact, does not leave the node. Not covered:
the number of images, their sizes, and the time that an answer takes.

Flower's LocalDpMod is not used: it refuses replies with fewer arrays than the request (every arm
that keeps its embedding), sets the noise by a bound that holds for epsilon < 1 and one round, and
draws it from NumPy's global generator.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from clients.policy.node_policy import LocalPrivacy, RefusedError
from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.learning.privacy import noisy, standard_normal
from fl_ppseg.learning.updates import clipped, difference, moved
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_BYTES: Final = 2**16


def check_form(names: Iterable[str], privacy: LocalPrivacy | None) -> None:
    """Check before training that an update can take noise.

    Raises:
        RefusedError: It contains batch statistics, which noise could make negative.
    """
    if privacy is not None and any(is_buffer(name) for name in names):
        raise RefusedError("refused: batch statistics cannot take noise; use norm group")


def privatise_update(
    arrays: Arrays, start: Mapping[str, np.ndarray], privacy: LocalPrivacy | None
) -> Arrays:
    """Clip the update of weights and add noise, so that they may leave this node.

    Args:
        arrays: The weights after a local update.
        start: The weights before it; may contain more than those.
        privacy: What the owner demands; None: the weights are returned unchanged.

    Raises:
        RefusedError: As `check_form`.
    """
    if privacy is None:
        return arrays
    check_form(arrays, privacy)
    update = clipped(difference(arrays, start), privacy.clipping_norm)
    deviation = 2 * privacy.clipping_norm * privacy.noise_multiplier
    return moved({name: start[name] for name in arrays}, noisy(update, deviation))


def privatise_counts(
    counts: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    privacy: LocalPrivacy | None,
    state: Path,
) -> np.ndarray:
    """Add noise to confusion counts, so that they may leave this node; saves the sums of rows.

    Args:
        counts: (num_classes, num_classes) int64, rows are the truth.
        sizes: Height and width of each held-out label map, in pixels.
        privacy: What the owner demands; None: the counts are returned unchanged.
        state: The node's state folder, where the first sums of the rows are saved.

    Returns:
        Counts of the same shape, none below 0.
    """
    if privacy is None:
        return counts
    num_pixels = max(height * width for height, width in sizes)
    deviation = math.sqrt(2) * num_pixels * privacy.noise_multiplier
    noise = deviation * standard_normal(counts.shape)
    noisy_counts = np.maximum(np.rint(counts + noise), 0).astype(np.int64)
    path = state / f"rows_{_name(counts.shape, sizes)}.json"
    if not path.exists():
        rows = [int(row) for row in noisy_counts.sum(axis=1)]
        write_atomically(path, json.dumps(rows), mode=0o600)
    return with_rows(noisy_counts, _read_rows(path, len(counts)))


def with_rows(counts: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Counts in the same proportions whose rows have these sums; uses only noisy values.

    >>> with_rows(np.array([[3, 1], [0, 0]]), [2, 5]).tolist()
    [[2, 0], [3, 2]]
    """
    return np.array(
        [_apportion(row.tolist(), total) for row, total in zip(counts, rows, strict=True)]
    )


def _apportion(weights: list[int], total: int) -> list[int]:
    """Apportion a whole number to weights by the method of the largest remainders."""
    weights = weights if any(weights) else [1] * len(weights)
    whole = sum(weights)
    shares = [weight * total // whole for weight in weights]
    rest = sorted(range(len(weights)), key=lambda n: (-(weights[n] * total % whole), n))
    for n in rest[: total - sum(shares)]:
        shares[n] += 1
    return shares


def _name(shape: tuple[int, ...], sizes: Sequence[tuple[int, int]]) -> str:
    """A name for a held-out set by what its counts depend on, so that each set has its own sums."""
    return hashlib.sha256(json.dumps([shape, list(map(list, sizes))]).encode()).hexdigest()[:16]


def _read_rows(path: Path, length: int) -> list[int]:
    found = parse_json(read_bytes(path, MAX_BYTES), str(path))
    values = found if isinstance(found, list) else []
    rows = [row for row in values if type(row) is int and 0 <= row < 2**53]
    if len(rows) != len(values) or len(rows) != length:
        raise InputError(f"{path}: damaged (expected {length} sums of counts); remove it")
    return rows
