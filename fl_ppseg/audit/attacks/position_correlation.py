"""Position correlation: recover the one permutation of all blocks from ciphertexts alone.

Adversary: holds ciphertexts under one permutation of a block's values (block scope `common`), and
any public images; no plain image of the owner, no key.
Method: how often two positions hold nearly the same value depends on their distance, within a block
and between a block and its neighbour on the right or below (blocks stay in place). The permutation
that makes these statistics of the ciphertexts most like those of public images is the solution of a
quadratic assignment problem, solved by local search from several starts; after each, the 8
flips and rotations by 6 orders of channels are tried. Last, the order of channels is chosen by
colour. Inversion is removed first: the values of a block are positively correlated, so the signs of
the leading eigenvector of the correlations between positions are those of the key up to one global
sign, which is chosen by brightness.
Must succeed on about a hundred blocks or more, of one image or of several under a reused key. Must
fail with one permutation per block: then all positions have the same statistics.
"""

from itertools import permutations
from typing import Final

import numpy as np

from fl_ppseg.audit.attacks.colours import channel_order
from fl_ppseg.audit.attacks.graph_matching import Order, Puzzle, barycentre, climb, swap_nodes
from fl_ppseg.audit.attacks.position_statistics import (
    distances,
    graphs,
    inverted_positions,
    to_grids,
)
from fl_ppseg.audit.attacks.undoing import Algorithm, Images, KeyGuess, Undoing, values_of_pixels

WEIGHT_OF_MEANS: Final = 0.1
"""Weight of means and deviations against the graphs; with 0 or 0.5 fewer keys are found."""
NOISE: Final = 2.0
"""Deviation of the log entries of all starts but the first, which is uniform."""


def correlate_positions(
    ciphertexts: Images,
    public: Images,
    *,
    block_size: int,
    algorithm: Algorithm,
    num_starts: int = 4,
    seed: int = 0,
) -> KeyGuess:
    """Recover the permutation and signs that all blocks share, and decrypt.

    Args:
        ciphertexts: (n, 3, H, W) under one key with block scope `common`.
        public: (m, 3, H', W') public images of any size, the prior.
        block_size: Side M of a block in pixels.
        algorithm: What the cipher may do; codebooks are not searched for.
        num_starts: Local searches, of which the best is kept.
        seed: Of the starts and of the choice of blocks.

    Returns:
        The reconstructions and the key; the confidence is the correlation of the matched
        statistics: above 0.75 if most of the permutation is right, below 0.5 if there is none.
    """
    sign = np.ones(3 * block_size**2, np.int8)
    if algorithm.inverts:
        grids = (to_grids(images, block_size) for images in (ciphertexts, public))
        sign[inverted_positions(*grids)] = -1
    undoing, confidence = Undoing.signed(np.arange(len(sign)), sign), 1.0
    if algorithm.moves != "nothing":
        upright = undoing.reconstruct(ciphertexts, block_size)
        generator = np.random.default_rng(seed)
        order, confidence = _order(upright, public, block_size, algorithm, num_starts, generator)
        undoing = Undoing.signed(order, sign)
    return KeyGuess(undoing.reconstruct(ciphertexts, block_size), undoing, confidence)


def _order(
    hidden: Images,
    public: Images,
    block_size: int,
    algorithm: Algorithm,
    num_starts: int,
    generator: np.random.Generator,
) -> tuple[Order, float]:
    """(n, 3, H, W) without inversion -> (L,) source of each value, and the confidence."""
    whole_pixels = algorithm.moves == "pixels"
    puzzle = _puzzle(hidden, public, block_size, 3 if whole_pixels else 1, generator)
    order = _solve(puzzle, block_size, num_starts, generator)
    if whole_pixels:  # their channels stay in place
        return values_of_pixels(order), puzzle.agreement(order)
    straight = Undoing.signed(order, np.ones(len(order), np.int8)).reconstruct(hidden, block_size)
    # the channel that was reconstructed as the one of number channels[c] is c
    channels = list(channel_order(straight, public))
    places = np.arange(len(order)).reshape(3, -1)[channels].ravel()
    order = swap_nodes(puzzle, places.argsort()[order])
    return order, puzzle.agreement(order)


def _puzzle(
    hidden: Images,
    public: Images,
    block_size: int,
    num_layers: int,
    generator: np.random.Generator,
) -> Puzzle:
    """The statistics of the ciphertexts, to be matched to those of public images."""
    sought, known = (to_grids(images, block_size) for images in (hidden, public))
    unknown, named = (graphs(grids, num_layers, generator) for grids in (sought, known))
    weight = WEIGHT_OF_MEANS * unknown.size / len(unknown[0]) / 3  # node against edges
    return Puzzle(unknown, named, -weight * distances(sought, known, num_layers))


def _solve(
    puzzle: Puzzle, block_size: int, num_starts: int, generator: np.random.Generator
) -> Order:
    """(U,), the best of several searches, each followed by turns and swaps until neither gains."""
    num_nodes, found = len(puzzle.bonus), []
    turns = _turns(block_size, num_nodes // block_size**2)
    for noise in (0.0, *[NOISE] * (num_starts - 1)):
        order = climb(puzzle, barycentre(num_nodes, noise, generator))
        turned = max((turn[order] for turn in turns), key=puzzle.gain)
        found.append(swap_nodes(puzzle, turned))
    return max(found, key=puzzle.gain)


def _turns(block_size: int, num_channels: int) -> list[Order]:
    """(U,) orders of a block's values or pixels: 8 flips and rotations by all channel orders."""
    places = np.arange(num_channels * block_size**2).reshape(-1, block_size, block_size)
    flips = [np.rot90(side, k, (1, 2)) for side in (places, places[:, :, ::-1]) for k in range(4)]
    return [flip[list(p)].ravel() for flip in flips for p in permutations(range(num_channels))]
