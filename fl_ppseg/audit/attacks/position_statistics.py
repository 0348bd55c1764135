"""Statistics of pairs of positions of a block, over the blocks of many images."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri  # type: ignore[import-untyped]

from fl_ppseg.audit.attacks.undoing import Images
from fl_ppseg.data.blocks import to_blocks

Grids = npt.NDArray[np.uint8]
"""(n, grid_h, grid_w, L)."""
Blocks = npt.NDArray[np.uint8]
"""(B, L)."""
Matrix = npt.NDArray[np.float32]

NEARNESS: Final = 10.0
"""Width of the Gaussian kernel, in grey levels. Of 2 to 30 measured, 10 finds most keys.
Correlation and mean square difference find far fewer: there edges and highlights, which differ
between images, have the greatest weight."""
NUM_BLOCKS: Final = 4096
"""Most pairs of blocks that are used, drawn at random."""
NUM_STRIPS: Final = 4
"""Bands of an image, from sky to road, whose means and deviations are compared."""


def to_grids(images: Images, block_size: int) -> Grids:
    """(n, 3, H, W) -> (n, grid_h, grid_w, L)."""
    number, _, height, width = images.shape
    blocks = to_blocks(images, block_size)
    return blocks.reshape(number, height // block_size, width // block_size, -1)


def graphs(grids: Grids, num_layers: int, generator: np.random.Generator) -> Matrix:
    """Similarity of two positions, within a block and to the blocks on the right and below.

    Args:
        grids: Blocks in their places.
        num_layers: C = 1 for graphs of all values; 3 for graphs of pixels, one per channel pair.
        generator: Draws the blocks.

    Returns:
        (3 C², L / C, L / C), the weights of each graph as normal scores, which are invariant to
        contrast and sharpness.
    """
    length = grids.shape[-1]
    found: list[Matrix] = []
    for ours, theirs in _neighbours(grids):
        chosen = generator.permutation(len(ours))[:NUM_BLOCKS]
        alike = likeness(ours[chosen], theirs[chosen])
        parts = alike.reshape(num_layers, length // num_layers, num_layers, -1)
        found += [*parts.transpose(0, 2, 1, 3).reshape(num_layers**2, *parts.shape[1::2])]
    return np.stack([_normal_scores(graph) for graph in found])


def likeness(ours: Blocks, theirs: Blocks) -> Matrix:
    """(B, L) twice -> (L, L), the mean over blocks of exp(-(v - w)² / 2 NEARNESS²).

    Computed as one matrix product per significant eigenvalue of the Gaussian kernel of bytes.
    """
    values = np.arange(256) / NEARNESS
    weights, vectors = np.linalg.eigh(np.exp(-((values[:, None] - values) ** 2) / 2))
    matter = weights > weights[-1] / 300
    total = np.zeros((ours.shape[1], theirs.shape[1]), np.float32)
    for feature in (vectors * np.sqrt(np.maximum(weights, 0))).T[matter].astype(np.float32):
        total += feature[ours].T @ feature[theirs]
    total /= max(len(ours), 1)
    return total


def distances(hidden: Grids, known: Grids, num_layers: int) -> Matrix:
    """(U, U), mean square distance of the means and deviations of two positions, per strip."""
    ours, theirs = (_profiles(grids) for grids in (hidden, known))  # L F
    far = ((ours[:, None] - theirs) ** 2).mean(axis=-1)
    parts = far.reshape(num_layers, len(far) // num_layers, num_layers, -1)
    same: Matrix = np.einsum("cicj->ij", parts).astype(np.float32) / num_layers
    return same


def inverted_positions(hidden: Grids, known: Grids) -> npt.NDArray[np.bool_]:
    """(L,) which positions the key inverts, the same in all blocks.

    Either the positions with one sign in the leading eigenvector, or those with the other:
    whichever gives strips the brightness of those of public images.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # positions of constant value: 0 below
        correlations = np.nan_to_num(np.corrcoef(hidden.reshape(-1, hidden.shape[-1]).T))
    inverted: npt.NDArray[np.bool_] = np.linalg.eigh(correlations)[1][:, -1] < 0
    errors = [
        np.abs(_brightness(np.where(guess, 255 - hidden, hidden)) - _brightness(known)).sum()
        for guess in (inverted, ~inverted)
    ]
    return inverted if errors[0] <= errors[1] else ~inverted


def _neighbours(grids: Grids) -> Iterator[tuple[Blocks, Blocks]]:
    """Pairs of blocks: each with itself, its right neighbour and its lower neighbour."""
    length = grids.shape[-1]
    for ours, theirs in (
        (grids, grids),
        (grids[:, :, :-1], grids[:, :, 1:]),
        (grids[:, :-1], grids[:, 1:]),
    ):
        yield ours.reshape(-1, length), theirs.reshape(-1, length)


def _normal_scores(graph: Matrix) -> Matrix:
    """(U, U) -> (U, U), each weight the normal quantile of its rank; 0 where all are equal."""
    if np.ptp(graph) == 0:
        return np.zeros_like(graph)
    ranks = np.empty(graph.size)
    ranks[graph.ravel().argsort(kind="stable")] = (np.arange(graph.size) + 0.5) / graph.size
    scores: Matrix = ndtri(ranks).astype(np.float32).reshape(graph.shape)
    return scores


def _strips(grids: Grids) -> list[Blocks]:
    """Bands of block rows from top to bottom, (B, L) each."""
    rows = np.array_split(np.arange(grids.shape[1]), min(NUM_STRIPS, grids.shape[1]))
    return [grids[:, band].reshape(-1, grids.shape[-1]) for band in rows]


def _profiles(grids: Grids) -> npt.NDArray[np.float64]:
    """(L, F), mean and deviation of each position per strip, relative to those of all positions."""
    strips = _strips(grids)
    profiles = np.stack([f(axis=0) for strip in strips for f in (strip.mean, strip.std)], axis=1)
    profiles -= profiles.mean(axis=0)
    profiles /= np.sqrt((profiles**2).mean(axis=0)) + 1e-6
    return profiles


def _brightness(grids: Grids) -> npt.NDArray[np.float64]:
    """(strips, 9), deciles of all values of a strip."""
    return np.stack([np.percentile(strip, np.arange(10, 100, 10)) for strip in _strips(grids)])
