"""Chosen plaintext: one query gives any reused key, and nothing of keys used once."""

import numpy as np
import pytest
from attack_cases import ALGORITHMS, Images, encrypted, scenes, share_right

from fl_ppseg.audit.attacks.chosen_plaintext import match_chosen
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey

IMAGES = scenes(2, (32, 64))
"""Blocks of 8x8 have 192 positions, of 16x16 768, which take two digits in base 256."""
SUBSTITUTING = {
    "ffx": Algorithm("nothing", substitutes=True),
    "shuffle+ffx": Algorithm("values", substitutes=True),
    "etc+ffx+shuffle": Algorithm("values", inverts=True, substitutes=True),
}


@pytest.mark.parametrize("scope", ["common", "per-block"])
@pytest.mark.parametrize("block_size", [8, 16])
@pytest.mark.parametrize("cipher", [*ALGORITHMS, *SUBSTITUTING])
def test_one_query_is_the_key(cipher: str, block_size: int, scope: Scope) -> None:
    queries = []

    def oracle(images: Images) -> Images:
        queries.append(len(images))
        return encrypted(images, cipher, block_size, scope)

    guess = match_chosen(
        encrypted(IMAGES, cipher, block_size, scope),
        oracle,
        block_size=block_size,
        algorithm=(ALGORITHMS | SUBSTITUTING)[cipher],
        per_block=scope == "per-block",
    )
    assert len(queries) == 1
    assert guess.confidence == 1
    np.testing.assert_array_equal(guess.reconstructed, IMAGES)
    if scope == "common" and cipher in ALGORITHMS:
        assert share_right(guess.undoing, cipher, block_size) == 1


@pytest.mark.parametrize("cipher", ["shuffle", "etc+ffx+shuffle"])
def test_keys_used_once_give_nothing(cipher: str) -> None:
    keys = iter(SubKey.from_bytes(i.to_bytes(32)) for i in range(1000))

    def fresh(images: Images) -> Images:
        hidden = [
            encrypt(image, next(keys), cipher, block_size=8, scope="common") for image in images
        ]
        return np.stack(hidden)

    hidden = fresh(IMAGES)
    guess = match_chosen(hidden, fresh, block_size=8, algorithm=(ALGORITHMS | SUBSTITUTING)[cipher])
    assert (guess.reconstructed == IMAGES).mean() < 0.2
