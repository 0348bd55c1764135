"""Images searched for by their gradients: better than chance with labels given, and when not."""

from dataclasses import replace
from pathlib import Path

import attacked
import numpy as np
import pytest
import torch

from fl_ppseg.audit.attacks.gradient_matching import Match, gradient_matching
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.scores import score_images
from fl_ppseg.audit.update import Truth
from fl_ppseg.classes import load_class_table
from fl_ppseg.config import ModelConfig
from fl_ppseg.dataset import Scene, open_dataset

SHIPPED = ModelConfig().model_dump()
"""A model that knows street scenes."""


@pytest.fixture(scope="module")
def images(scenes: Path) -> tuple[Scene, ...]:
    return open_dataset(scenes, load_class_table("cityscapes")).split("train")["aachen"]


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


def test_with_labels_given_the_layout_of_one_image_comes_back(
    frozen: tuple[Exchange, Truth],
) -> None:
    exchange, truth = frozen
    found = searched(exchange, truth, 80)
    assert found.images.shape == truth.plain.shape
    assert score_images(truth.plain, found.images, 8).correlation > 0.25
    assert found.distance < 0.9


def test_gradients_of_no_image_show_nothing(frozen: tuple[Exchange, Truth]) -> None:
    exchange, truth = frozen
    noise = np.random.default_rng(0)

    def mixed(name: str) -> np.ndarray:
        moved = exchange.returned[name] - exchange.sent[name]
        return exchange.sent[name] + noise.permutation(moved.ravel()).reshape(moved.shape)

    other = replace(exchange, returned={name: mixed(name) for name in exchange.returned})
    found = searched(other, truth, 40)
    assert found.distance > 1.5
    assert abs(score_images(truth.plain, found.images, 8).correlation) < 0.25


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
