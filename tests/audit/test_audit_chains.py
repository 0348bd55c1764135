"""Attacks made of others: what a message shows is attacked like a stolen ciphertext."""

from functools import partial

import attacked
import numpy as np
import pytest

from fl_ppseg.audit.attacks.chains import decrypted_update, of_many_images, of_shown
from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.undoing import Algorithm
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Truth
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.setr.names import EMBEDDING_TENSORS


@pytest.fixture(scope="module")
def published(images: tuple[Scene, ...]) -> tuple[Exchange, Truth]:
    return attacked.message("domain-adaptation", images[:1])


def public_embedding(images: tuple[Scene, ...]) -> np.ndarray:
    exchange, _ = attacked.message("plain", images[:1])
    return exchange.sent[EMBEDDING_TENSORS[0]]


def test_a_published_embedding_decrypts_what_its_message_shows(
    published: tuple[Exchange, Truth], images: tuple[Scene, ...]
) -> None:
    exchange, truth = published
    public = public_embedding(images)
    found = decrypted_update(exchange, public, 8, Algorithm("values"))
    assert found is not None
    assert score_images(truth.plain, found.reconstructed, 8).ssim > 0.9
    assert score_images(truth.plain, truth.stored, 8).ssim < 0.6


def test_a_message_without_the_embedding_opens_no_door(images: tuple[Scene, ...]) -> None:
    exchange, _ = attacked.message("plain-frozen-embedding", images[:1])
    assert of_shown(partial(closed_form_gradient, exchange), lambda seen: seen) is None
    public = public_embedding(images)
    assert decrypted_update(exchange, public, 8, Algorithm("values")) is None


def test_what_is_sent_is_handed_on(published: tuple[Exchange, Truth]) -> None:
    exchange, truth = published
    seen = of_shown(partial(closed_form_gradient, exchange), lambda ciphertext: 255 - ciphertext)
    assert seen is not None
    assert score_images(255 - truth.stored, seen, 8).ssim > 0.9


def test_only_targets_are_restored() -> None:
    shard = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 32), np.uint8)
    found = of_many_images(shard, 2, shard, block_size=8, algorithm=Algorithm("pixels"))
    assert found.reconstructed.shape == (2, 3, 16, 32)
    assert found.undoing.index.shape == (1, 192)
