"""The attack `statistics`: finds out an inversion of exactly half of the values, and no other."""

import numpy as np
import pytest
from audit_streets import BLOCK, Encrypt, streets
from half_inversion import NAME, HalfInversion

from fl_ppseg.audit.attacks.statistics import block_statistics, statistics
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.leaks.scores import Scores, score_images

WITH = ("{}", "shuffle+{}", "shuffle-spatial+{}")
"""The inversion alone, and after what else arms encrypt with."""
TARGETS = streets(40, 1)[0]


def scored(cipher: str) -> Scores:
    """Of guesses at ciphertexts under fixed keys, a key a block."""
    own, theirs = (Encrypt(cipher, "per-block", first) for first in (0, 10**6))
    public, _ = streets(400, 0)
    guess = statistics(public, theirs(TARGETS), own, block_size=BLOCK)
    return score_images(TARGETS, guess, BLOCK)


@pytest.fixture
def half_inversion(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which it is registered."""
    monkeypatch.setitem(CIPHERS, NAME, HalfInversion())  # type: ignore[arg-type]
    return NAME


@pytest.fixture(scope="module")
def chance() -> Scores:
    """What the place of a block tells alone: ciphertexts that are all alike."""
    public, _ = streets(400, 0)
    guess = statistics(public, np.zeros_like(TARGETS), np.zeros_like, block_size=BLOCK)
    return score_images(TARGETS, guess, BLOCK)


@pytest.mark.parametrize("product", WITH)
def test_an_inversion_of_exactly_half_shows_which_blocks_lie_on_one_side_of_grey(
    product: str, half_inversion: str, chance: Scores
) -> None:
    """Measured: SSIM 0.44 for 0.36, correlation 0.905 for 0.878."""
    found = scored(product.format(half_inversion))
    assert found.ssim > chance.ssim + 0.04
    assert found.psnr > chance.psnr + 0.5
    assert found.correlation > chance.correlation + 0.01


@pytest.mark.parametrize("product", WITH)
def test_an_inversion_by_a_bit_a_value_tells_nothing(product: str, chance: Scores) -> None:
    found = scored(product.format("negative-positive"))
    assert found.ssim < chance.ssim + 0.015
    assert found.psnr < chance.psnr + 0.15
    assert found.correlation < chance.correlation + 0.005


def test_counts_that_survive_openly_tell_less_than_the_thumbnail(chance: Scores) -> None:
    found = scored("shuffle")
    public, _ = streets(400, 0)
    small = thumbnail(
        public, Encrypt("shuffle", "per-block", 5)(TARGETS), "values", block_size=BLOCK
    )
    assert chance.ssim + 0.1 < found.ssim < score_images(TARGETS, small, BLOCK).ssim


def test_numbers_of_a_block_by_hand() -> None:
    image = np.zeros((1, 3, 2, 4), np.uint8)
    image[0, 0, :, 2:] = 200  # the red of the second block
    image[0, 1, 0, 2] = 128
    numbers = block_statistics(image, 2)
    assert numbers.shape == (1, 1, 2, 12)
    assert numbers[0, 0, 0].tolist() == [0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert numbers[0, 0, 1].tolist() == [5, 1, 2, 0, 4, 1, 0, 1, 0, 928, 0, 200]


def test_the_double_inverts_half_of_each_block() -> None:
    mask = HalfInversion().draw(SubKey(bytes(32)), Geometry(3, 4, 2, 2), "per-block").mask
    assert (np.count_nonzero(mask, axis=1) == 24).all()
