"""The inverse network: wins under a shared key; else it gets what the survivor network gets."""

import numpy as np
import pytest
from audit_streets import BLOCK, Encrypt, streets

from fl_ppseg.audit.attacks.inverse_network import inverse_network
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.leaks.scores import score_images

BUDGET = Budget(15)


@pytest.mark.parametrize("cipher", ["shuffle", "negative-positive", "ffx"])
def test_a_key_that_all_share_hides_nothing_from_who_has_pairs_of_it(cipher: str) -> None:
    """The adversary is a client of `shared` keys, or ffx would have no canonical form to read."""
    (public, _), (targets, _) = streets(80, 0), streets(10, 1)
    encrypt = Encrypt(cipher, "common", 3, reused=True)
    guess = inverse_network(
        public, encrypt(targets), encrypt, None, block_size=BLOCK, budget=BUDGET
    )
    assert score_images(targets, guess, BLOCK).ssim > 0.8


def test_keys_of_each_block_leave_it_no_more_than_the_survivor_network() -> None:
    (public, _), (targets, _) = streets(80, 0), streets(20, 1)
    own, others = (Encrypt("shuffle", "per-block", first) for first in (0, 10**6))
    ciphertexts = others(targets)
    attack = inverse_network(public, ciphertexts, own, "values", block_size=BLOCK, budget=BUDGET)
    survivors = survivor_network(public, ciphertexts, "values", block_size=BLOCK, budget=BUDGET)
    reached = [score_images(targets, guess, BLOCK).ssim for guess in (attack, survivors)]
    assert reached[0] < reached[1] + 0.02
    assert reached[0] > score_images(targets, ciphertexts, BLOCK).ssim + 0.1
    assert not np.array_equal(attack, survivors)
