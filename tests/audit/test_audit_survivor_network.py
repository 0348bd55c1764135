"""The survivor network: more than nothing, and the same whatever the keys."""

import numpy as np
from audit_streets import BLOCK, Encrypt, streets

from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.leaks.scores import score_images

BUDGET = Budget(25)


def test_what_survives_restores_more_than_nothing_and_the_finer_form_more() -> None:
    (public, _), (targets, _) = streets(60, 0), streets(20, 1)
    blind = np.repeat(nothing(public, block_size=BLOCK, budget=BUDGET), len(targets), axis=0)
    found = {"": score_images(targets, blind, BLOCK).ssim}
    for cipher, form in (("shuffle+negative-positive", "magnitudes"), ("shuffle", "values")):
        ciphertexts = Encrypt(cipher, "per-block", 0)(targets)
        guess = survivor_network(public, ciphertexts, form, block_size=BLOCK, budget=BUDGET)
        found[form] = score_images(targets, guess, BLOCK).ssim
    assert found[""] + 0.05 < found["magnitudes"] < found["values"], found


def test_no_key_changes_what_the_network_makes_of_a_target() -> None:
    (public, _), (targets, _) = streets(8, 0), streets(2, 1)
    guesses = [
        survivor_network(public, shown, "values", block_size=BLOCK, budget=Budget(2))
        for shown in (targets, Encrypt("shuffle", "per-block", 5)(targets))
    ]
    assert np.array_equal(*guesses)
