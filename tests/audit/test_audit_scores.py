"""Scores of reconstructed images, by hand and by their laws."""

import numpy as np
import pytest

from fl_ppseg.leaks.scores import BEST_PSNR, block_means, score_images


def images(seed: int = 0, n: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3, 16, 32), np.uint8)


def test_the_image_itself_scores_best() -> None:
    found = score_images(images(), images(), 8)
    assert (found.ssim, found.psnr, found.miou) == (1.0, BEST_PSNR, None)
    assert found.correlation == pytest.approx(1.0)


def test_psnr_by_hand() -> None:
    black = np.zeros((1, 3, 16, 16), np.uint8)
    grey = np.full_like(black, 51)  # a fifth of the range: 20 log10 5
    assert score_images(black, grey, 8).psnr == pytest.approx(20 * np.log10(5))


def test_block_means_are_of_blocks_and_channels() -> None:
    image = np.zeros((1, 3, 4, 4), np.uint8)
    image[0, 1, :2, 2:] = [[1, 2], [3, 6]]
    wanted = np.zeros((1, 3, 2, 2))
    wanted[0, 1, 0, 1] = 3
    np.testing.assert_array_equal(block_means(image, 2), wanted)


def test_shuffled_blocks_keep_the_correlation_and_lose_the_rest() -> None:
    rng = np.random.default_rng(1)
    smooth = np.linspace(0, 255, 16 * 32).reshape(1, 1, 16, 32).repeat(3, axis=1).astype(np.uint8)
    turned = smooth.copy()
    for y in range(0, 16, 8):
        for x in range(0, 32, 8):
            block = smooth[0, :, y : y + 8, x : x + 8].reshape(3, 64)
            turned[0, :, y : y + 8, x : x + 8] = block[:, rng.permutation(64)].reshape(3, 8, 8)
    found = score_images(smooth, turned, 8)
    assert found.correlation == pytest.approx(1.0)
    assert found.ssim < 0.9


def test_a_guess_without_contrast_correlates_with_nothing() -> None:
    assert score_images(images(), np.full_like(images(), 7), 8).correlation == 0.0


def test_an_inverted_image_correlates_backwards() -> None:
    assert score_images(images(), 255 - images(), 8).correlation == pytest.approx(-1.0)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        score_images(images(n=2), images(n=1), 8)
