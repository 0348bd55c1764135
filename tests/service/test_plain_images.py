"""The guard against plain images: what it refuses, what it lets pass, what it cannot decide."""

import re
from pathlib import Path

import numpy as np
import pytest
import small_service as small

from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.service.plain_images import (
    CONTIGUITY,
    CONTIGUITY_OF_KEPT,
    MIN_BLOCKS,
    MIN_SIDE,
    SEAM,
    contiguity,
    looks_plain,
)

PRODUCTS = ("shuffle-spatial+negative-positive", "shuffle+negative-positive", "etc+shuffle")


def spec_of(cipher: str | None, scope: str | None = "per-block", block: int = 8) -> QuerySpec:
    return small.SPEC.model_copy(update={"cipher": cipher, "scope": scope, "block_size": block})


@pytest.mark.parametrize("scope", ["common", "per-block"])
@pytest.mark.parametrize("cipher", [*CIPHERS, *PRODUCTS])
def test_images_are_told_from_ciphertexts(
    cipher: str, scope: str, images: tuple[Scene, ...]
) -> None:
    spec = spec_of(cipher, scope)
    for scene in images:
        image, _ = scene.load()
        if cipher != "restricted-shuffle":  # which would let some of these noisy scenes pass
            assert looks_plain(image, spec)
        encrypted = encrypt(image, SubKey.generate(), cipher, block_size=8, scope=scope)  # type: ignore[arg-type]
        assert not looks_plain(encrypted, spec)


def test_nothing_is_refused_where_images_are_meant() -> None:
    assert not looks_plain(small.photograph(), spec_of(None, None))


@pytest.mark.parametrize("cipher", ["shuffle", "etc"])
def test_what_cannot_be_decided_passes(cipher: str) -> None:
    spec = spec_of(cipher)
    one_colour = np.full((3, 64, 128), 77, np.uint8)
    assert not looks_plain(one_colour, spec)
    one_colour[:, :8, :56] = small.photograph()[:, :8, :56]  # seven blocks that say something
    assert not looks_plain(one_colour, spec)
    one_colour[:, :8, :64] = small.photograph()[:, :8, :64]
    assert looks_plain(one_colour, spec)
    assert not looks_plain(small.photograph(), spec_of(cipher, block=2))


def test_contiguity_is_geary_s() -> None:
    """Of a hand-worked block: 0 1 / 2 3 in one channel, the others of one colour."""
    block = np.zeros((1, 3, 2, 2), np.float32)
    block[0, 0] = [[0, 1], [2, 3]]
    # neighbours: 1, 1 across and 4, 4 down, mean 2.5; any two: 1 4 9 1 4 1, mean 20 / 6
    np.testing.assert_allclose(contiguity(block), [2.5 / (20 / 6)], rtol=1e-6)


def test_every_order_of_pixels_has_one_on_average() -> None:
    rng = np.random.default_rng(3)
    pixels = rng.permuted(np.tile(rng.integers(0, 256, 64), (20_000, 1)), axis=1)
    blocks = np.zeros((20_000, 3, 8, 8), np.float32)
    blocks[:, 0] = pixels.reshape(-1, 8, 8)
    assert abs(contiguity(blocks).mean() - 1) < 0.005


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    for value in (CONTIGUITY, CONTIGUITY_OF_KEPT, SEAM, MIN_BLOCKS, MIN_SIDE):
        assert re.search(rf"\b{value}\b", text)
