"""Position correlation: one order for all blocks is found without a plain image, others are not."""

import numpy as np
import pytest
from attack_cases import ALGORITHMS, encrypted, scenes, share_right

from fl_ppseg.audit.attacks.colours import channel_order
from fl_ppseg.audit.attacks.position_correlation import correlate_positions
from fl_ppseg.audit.attacks.position_statistics import likeness
from fl_ppseg.leaks.scores import score_images

SIZE = 8
OWN = scenes(24, (64, 128), seed=1)
PUBLIC = scenes(24, (64, 128), seed=2)


@pytest.mark.parametrize("cipher", ALGORITHMS)
def test_a_reused_key_is_found_exactly(cipher: str) -> None:
    hidden = encrypted(OWN, cipher, SIZE)
    guess = correlate_positions(
        hidden, PUBLIC, block_size=SIZE, algorithm=ALGORITHMS[cipher], num_starts=1
    )  # one search finds it already, and of several the best is kept
    assert share_right(guess.undoing, cipher, SIZE) == 1
    np.testing.assert_array_equal(guess.reconstructed, OWN)
    assert guess.confidence > 0.8


def test_one_large_image_is_enough() -> None:
    """2048 blocks under one order: a key an image does not help where its blocks share it."""
    own, public = scenes(1, (256, 512), seed=1), scenes(3, (256, 512), seed=2)
    hidden = encrypted(own, "shuffle", SIZE)
    guess = correlate_positions(hidden, public, block_size=SIZE, algorithm=ALGORITHMS["shuffle"])
    assert score_images(own, guess.reconstructed, SIZE).ssim > 0.9


def test_an_order_a_block_leaves_no_trace() -> None:
    hidden = encrypted(OWN, "shuffle", SIZE, "per-block")
    guess = correlate_positions(hidden, PUBLIC, block_size=SIZE, algorithm=ALGORITHMS["shuffle"])
    assert share_right(guess.undoing, "shuffle", SIZE) < 0.04
    gained = (
        score_images(OWN, guess.reconstructed, SIZE).ssim - score_images(OWN, hidden, SIZE).ssim
    )
    assert gained < 0.03
    assert guess.confidence < 0.5


def test_the_same_seed_gives_the_same_guess() -> None:
    hidden = encrypted(OWN[:1], "shuffle", SIZE)
    first, second = (
        correlate_positions(
            hidden,
            PUBLIC[:4],
            block_size=SIZE,
            algorithm=ALGORITHMS["shuffle"],
            num_starts=2,  # one without noise, one with
            seed=3,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.undoing.index, second.undoing.index)


def test_likeness_is_the_mean_of_the_kernel() -> None:
    """Against the formula, pair by pair; eigenvalues that are left out matter little."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.integers(0, 256, (2, 50, 6)).astype(np.uint8)
    far = ours[:, :, None].astype(float) - theirs[:, None, :]
    np.testing.assert_allclose(
        likeness(ours, theirs), np.exp(-(far**2) / 200).mean(axis=0), atol=0.01
    )


def test_channels_are_told_by_their_colours() -> None:
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        mixed = np.empty_like(OWN)
        mixed[:, list(order)] = OWN
        assert channel_order(mixed, PUBLIC) == order


def test_images_that_say_nothing_are_no_error() -> None:
    """One row of flat blocks: no neighbour below, nothing that varies."""
    flat = np.full((1, 3, 4, 8), 7, np.uint8)
    guess = correlate_positions(
        flat, flat, block_size=4, algorithm=ALGORITHMS["shuffle+negative-positive"]
    )
    assert sorted(guess.undoing.index[0]) == list(range(48))
    assert guess.confidence == 0
