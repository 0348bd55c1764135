"""Images searched for by their gradients: better than chance with labels given, and when not."""

from dataclasses import replace

import attacked
import numpy as np
import pytest
import torch

from fl_ppseg.audit.attacks.gradient_matching import Match, gradient_matching
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Truth
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import score_images

SHIPPED = ModelConfig().model_dump()
"""A model that knows street scenes."""
SHALLOW = {
    "patch_size": 8,
    "embed_dim": 128,
    "depth": 2,
    "num_heads": 2,
    "weights": None,
    "decoder": "naive",
    "decoder_channels": 32,
    "num_convs": 1,
}


@pytest.fixture(scope="module")
def frozen(images: tuple[Scene, ...]) -> tuple[Exchange, Truth]:
    return attacked.message("plain-frozen-embedding", images[1:2], model=SHIPPED)


def searched(exchange: Exchange, truth: Truth, num_iterations: int) -> Match:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return gradient_matching(
            exchange, labels=truth.labels, num_iterations=num_iterations, num_restarts=1
        )
    finally:
        torch.set_num_threads(threads)


def shuffled(exchange: Exchange) -> Exchange:
    """The same message with gradients that are of no image."""
    noise = np.random.default_rng(0)

    def mixed(name: str) -> np.ndarray:
        moved = exchange.returned[name] - exchange.sent[name]
        return exchange.sent[name] + noise.permutation(moved.ravel()).reshape(moved.shape)

    return replace(exchange, returned={name: mixed(name) for name in exchange.returned})


def test_of_few_tokens_the_layout_comes_back(images: tuple[Scene, ...]) -> None:
    """Four tokens, an untrained model, labels given: what the attack wins, of most images.

    Chance is what it finds for one image beside another: streets resemble each other. Of gradients
    of no image the search ends anywhere, so that what it finds there says nothing; its distance
    does.
    """
    truths, found = [], []
    for k in range(6):
        exchange, truth = attacked.message(
            "plain-frozen-embedding", images[k : k + 1], model=SHALLOW, size=(16, 16)
        )
        match = searched(exchange, truth, 120)
        assert match.distance < 0.6
        truths.append(truth.plain)
        found.append(match.images)
    right = np.array([[score_images(t, f, 8).correlation for t in truths] for f in found])
    others = right[~np.eye(len(right), dtype=bool)]
    assert right.diagonal().mean() > 0.4
    assert right.diagonal().mean() > others.mean() + 0.15
    assert searched(shuffled(exchange), truth, 20).distance > 1


def test_gradients_of_no_image_stay_far(frozen: tuple[Exchange, Truth]) -> None:
    exchange, truth = frozen
    assert searched(exchange, truth, 60).distance < 0.9
    assert searched(shuffled(exchange), truth, 40).distance > 1.5


def test_private_embedding_is_attacked_as_a_frozen_public_one(
    images: tuple[Scene, ...], frozen: tuple[Exchange, Truth]
) -> None:
    exchange, truth = attacked.message("per-client-private", images[1:2], model=SHIPPED)
    assert (truth.stored != truth.plain).mean() > 0.5
    private, public = searched(exchange, truth, 10), searched(*frozen, 10)
    assert np.abs(private.images.astype(int) - public.images).max() <= 2
    assert private.distance == pytest.approx(public.distance, abs=1e-2)


def test_labels_that_are_not_given_are_searched_for_too(frozen: tuple[Exchange, Truth]) -> None:
    exchange, _ = frozen
    first, last = (
        gradient_matching(exchange, num_iterations=number, num_restarts=1).distance
        for number in (1, 25)
    )
    assert last < 0.8 * first


def test_equal_seeds_find_equal_images(frozen: tuple[Exchange, Truth]) -> None:
    exchange, _ = frozen
    found = [gradient_matching(exchange, num_iterations=3, seed=s).images for s in (1, 1)]
    np.testing.assert_array_equal(*found)
