"""What the tests of ciphers share: keys, images, strategies, and a chi-square test."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from scipy.stats import chisquare  # type: ignore[import-untyped]

from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

KEY = SubKey.from_bytes(bytes(range(32)))
OTHER_KEY = SubKey.from_bytes(bytes(range(1, 33)))
PRODUCTS = (
    "shuffle+negative-positive",
    "shuffle-spatial+negative-positive",
    "negative-positive+restricted-shuffle",
    "shuffle-spatial+shuffle",
    "etc+ffx+shuffle",
)
NAMES = (*CIPHERS, *PRODUCTS)

laws = settings(max_examples=30)
scopes = st.sampled_from(SCOPES)
subkeys = st.binary(min_size=32, max_size=32).map(SubKey.from_bytes)
products = st.lists(st.sampled_from(sorted(CIPHERS)), min_size=1, max_size=4, unique=True).map(
    "+".join
)


def make_image(geometry: Geometry, seed: int = 0) -> Bytes:
    channels, size, grid_h, grid_w = geometry
    shape = (channels, grid_h * size, grid_w * size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@st.composite
def geometries(draw: st.DrawFn, cipher: str = "shuffle") -> Geometry:
    """Rectangles of every block size from 1 to 32 that the cipher takes."""
    size = draw(st.integers(1, 16)) * 2 if "etc" in cipher else draw(st.integers(1, 32))
    return Geometry(3, size, draw(st.integers(1, 4)), draw(st.integers(1, 5)))


def tiled(block: Bytes, grid_h: int, grid_w: int) -> Bytes:
    """An image of equal blocks, so that what differs in the ciphertext is the key's doing."""
    return np.tile(block, (1, grid_h, grid_w))


def pixels_of(image: Bytes, block_size: int) -> Bytes:
    """(3, H, W) -> (N, M², 3), the pixels of each block."""
    blocks = to_blocks(image, block_size)
    return blocks.reshape(len(blocks), 3, -1).swapaxes(1, 2)


def assert_uniform(drawn: Any, num_outcomes: int) -> None:
    """Chi-square at 0.1 %, with fixed keys: rows of `drawn` fall on all outcomes equally often."""
    drawn = np.asarray(drawn)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(drawn) >= 5 * num_outcomes, "too few draws for the test to mean anything"
    assert len(counts) <= num_outcomes
    counts = np.pad(counts, (0, num_outcomes - len(counts)))
    assert chisquare(counts).pvalue > 0.001
