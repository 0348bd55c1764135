"""The thumbnail: the best colour of each block that what survives can tell."""

import numpy as np
import pytest
from audit_streets import BLOCK, Encrypt, streets

from fl_ppseg.audit.attacks.thumbnail import block_colours, enlarged, features, thumbnail
from fl_ppseg.leaks.scores import block_means, score_images

FORMS = {
    "shuffle": "values",
    "shuffle-spatial": "pixels",
    "shuffle+negative-positive": "magnitudes",
    "shuffle-spatial+negative-positive": "pixel-magnitudes",
}


def test_block_colours_are_the_means_of_blocks() -> None:
    images, _ = streets(2, 0)
    wanted = block_means(images, BLOCK).transpose(0, 2, 3, 1) / 127.5 - 1
    assert np.allclose(block_colours(images, BLOCK), wanted)


def test_a_thumbnail_of_one_colour_is_an_image_of_that_colour() -> None:
    colours = np.tile(np.array([-1.0, 0.2, 1.0]), (1, 2, 3, 1))
    image = enlarged(colours, 4)
    assert image.shape == (1, 3, 8, 12)
    assert [np.unique(channel).tolist() for channel in image[0]] == [[0], [153], [255]]


def test_what_is_read_of_blocks_lies_in_order_of_rows_and_columns() -> None:
    """What is read of block (1, 3) of 4 x 8 changes with that block alone and tells its place."""
    images, _ = streets(1, 0)
    before = features(images, "values", BLOCK)
    images[0, :, 4:8, 12:16] ^= 1
    changed = (features(images, "values", BLOCK) != before).any(axis=-1).nonzero()
    assert changed[0].tolist() == [8 + 3]
    assert before[8 + 3, 6 * BLOCK**2 :].tolist() == [0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("cipher", FORMS)
def test_it_shows_more_than_the_ciphertext_and_no_less_than_plain_means(cipher: str) -> None:
    (public, _), (targets, _) = streets(200, 0), streets(40, 1)
    ciphertexts = Encrypt(cipher, "per-block", 0)(targets)
    guesses = {
        "ciphertext": ciphertexts,
        "means": thumbnail(public, ciphertexts, None, block_size=BLOCK),
        "best": thumbnail(public, ciphertexts, FORMS[cipher], block_size=BLOCK),
    }
    found = {name: score_images(targets, guess, BLOCK) for name, guess in guesses.items()}
    assert found["best"].ssim > found["ciphertext"].ssim + 0.1
    assert found["best"].ssim > found["means"].ssim - 0.005
    assert found["best"].correlation > found["means"].correlation - 0.005
