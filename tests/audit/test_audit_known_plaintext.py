"""Known plaintext: exact on every reused key, nothing where keys are not reused."""

import numpy as np
import pytest
from attack_cases import ALGORITHMS, KEY, encrypted, scenes, share_right

from fl_ppseg.audit.attacks.known_plaintext import match_known
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey

SIZE = 8
IMAGES = scenes(6, (64, 128))


@pytest.mark.parametrize("cipher", ALGORITHMS)
def test_one_known_image_is_the_key_of_all(cipher: str) -> None:
    hidden = encrypted(IMAGES, cipher, SIZE)
    guess = match_known(
        hidden[1:], IMAGES[:1], hidden[:1], block_size=SIZE, algorithm=ALGORITHMS[cipher]
    )
    assert guess.confidence == 1
    assert share_right(guess.undoing, cipher, SIZE) == 1
    np.testing.assert_array_equal(guess.reconstructed, IMAGES[1:])


@pytest.mark.parametrize(
    ("cipher", "algorithm"),
    [
        ("ffx", Algorithm("nothing", substitutes=True)),
        ("shuffle+ffx", Algorithm("values", substitutes=True)),
        ("ffx+negative-positive", Algorithm("nothing", inverts=True, substitutes=True)),
    ],
)
def test_codebooks_are_read_off_as_far_as_their_values_were_met(
    cipher: str, algorithm: Algorithm
) -> None:
    hidden = encrypted(IMAGES, cipher, SIZE)
    guess = match_known(hidden[2:], IMAGES[:2], hidden[:2], block_size=SIZE, algorithm=algorithm)
    met = np.isin(IMAGES[2:], IMAGES[:2])
    assert 0.8 < guess.confidence <= 1
    assert (guess.reconstructed == IMAGES[2:])[met].mean() > 0.99
    assert set(np.unique(guess.undoing.sign)) >= {0, 1}


@pytest.mark.parametrize("cipher", ["shuffle", "shuffle-spatial+negative-positive"])
def test_a_key_a_block_falls_to_a_few_images_when_it_is_reused(cipher: str) -> None:
    """Each block index has its own order, told apart by one value an image."""
    shares = []
    hidden = encrypted(IMAGES, cipher, SIZE, "per-block")
    for num_known in (1, 2, 4):
        guess = match_known(
            hidden[4:],
            IMAGES[:num_known],
            hidden[:num_known],
            block_size=SIZE,
            algorithm=ALGORITHMS[cipher],
            per_block=True,
        )
        shares.append((guess.reconstructed == IMAGES[4:]).mean())
        assert guess.undoing.index.shape == (128, 192)
    assert shares[0] <= shares[1] <= shares[2]
    assert shares[1] > 0.9


def test_ties_are_shared_out_and_counted() -> None:
    """A flat block tells nothing; with one pair of equal columns all else is settled."""
    plain = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    plain[0, 0, 0] = 7, 7
    plain[0, 1, 1, 1] = 255
    hidden = encrypted(plain, "shuffle", 2)
    guess = match_known(hidden, plain, hidden, block_size=2, algorithm=Algorithm("values"))
    np.testing.assert_array_equal(guess.reconstructed, plain)
    assert guess.confidence == pytest.approx((10 + 2 / 2) / 12)

    flat = np.full((1, 3, 2, 2), 9, np.uint8)
    guess = match_known(hidden, flat, flat, block_size=2, algorithm=Algorithm("values"))
    assert guess.confidence == pytest.approx(1 / 12)
    assert sorted(guess.undoing.index[0]) == list(range(12))


def test_another_key_is_not_found() -> None:
    other = SubKey.from_bytes(bytes(32))
    hidden = encrypted(IMAGES[:1], "shuffle", SIZE)
    target = encrypt(IMAGES[1], other, "shuffle", block_size=SIZE, scope="common")[None]
    guess = match_known(target, IMAGES[:1], hidden, block_size=SIZE, algorithm=Algorithm("values"))
    assert share_right(guess.undoing, "shuffle", SIZE, KEY) == 1
    assert share_right(guess.undoing, "shuffle", SIZE, other) < 0.05
    assert (guess.reconstructed == IMAGES[1:2]).mean() < 0.2
