"""Embedding matching: an adapted embedding is the key, also after some training."""

import numpy as np
import pytest
import torch
from attack_cases import ALGORITHMS, KEY, encrypted, scenes, share_right

from fl_ppseg.audit.attacks.embedding_matching import match_embeddings
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.crypto.adaptation import adapt, linear_form

SIZE = 8
IMAGES = scenes(2, (32, 64))
PUBLIC = torch.randn(96, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("cipher", ALGORITHMS)
def test_an_adapted_embedding_is_the_key(cipher: str) -> None:
    adapted = adapt(PUBLIC, linear_form(cipher, KEY, SIZE)).numpy()
    guess = match_embeddings(
        encrypted(IMAGES, cipher, SIZE),
        adapted,
        PUBLIC.numpy(),
        block_size=SIZE,
        algorithm=ALGORITHMS[cipher],
    )
    np.testing.assert_array_equal(guess.reconstructed, IMAGES)
    assert share_right(guess.undoing, cipher, SIZE) == 1
    assert guess.confidence == pytest.approx(1)


def test_training_since_then_does_not_hide_it() -> None:
    """Drift half as long as the columns themselves."""
    cipher = "shuffle+negative-positive"
    drift = 0.5 * torch.randn(PUBLIC.shape, generator=torch.Generator().manual_seed(1))
    adapted = (adapt(PUBLIC, linear_form(cipher, KEY, SIZE)) + drift).numpy()
    hidden = encrypted(IMAGES, cipher, SIZE)
    guess = match_embeddings(
        hidden, adapted, PUBLIC.numpy(), block_size=SIZE, algorithm=ALGORITHMS[cipher]
    )
    assert share_right(guess.undoing, cipher, SIZE) == 1
    assert guess.confidence == pytest.approx(1 / np.sqrt(1.25), abs=0.02)


def test_an_embedding_of_other_origin_says_nothing() -> None:
    other = torch.randn(PUBLIC.shape, generator=torch.Generator().manual_seed(2)).numpy()
    hidden = encrypted(IMAGES, "shuffle", SIZE)
    guess = match_embeddings(
        hidden, other, PUBLIC.numpy(), block_size=SIZE, algorithm=Algorithm("values")
    )
    assert share_right(guess.undoing, "shuffle", SIZE) < 0.05
    assert guess.confidence < 0.5
