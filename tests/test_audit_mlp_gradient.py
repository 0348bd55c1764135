"""Tokens out of the first MLP's gradient: better than the mean public image, and when not."""

from dataclasses import replace
from pathlib import Path

import attacked
import numpy as np
import pytest

from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.scores import score_images
from fl_ppseg.classes import load_class_table
from fl_ppseg.dataset import Scene, open_dataset
from fl_ppseg.views import fit

MODEL = {"embed_dim": 64, "depth": 1}


@pytest.fixture(scope="module")
def cities(scenes: Path) -> dict[str, tuple[Scene, ...]]:
    return open_dataset(scenes, load_class_table("cityscapes")).split("train")


@pytest.fixture(scope="module")
def public(cities: dict[str, tuple[Scene, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Images and label maps of the coordinator's own; the client is aachen."""
    pairs = [fit(*s.load(), (32, 64), "resize") for c in ("bochum", "bremen") for s in cities[c]]
    return np.stack([image for image, _ in pairs]), np.stack([labels for _, labels in pairs])


def correlation(guess: np.ndarray, truth: np.ndarray, public: np.ndarray) -> float:
    """Of what is not in the mean public image."""
    usual = public.mean(axis=0)
    return float(np.corrcoef((guess[0] - usual).ravel(), (truth[0] - usual).ravel())[0, 1])


def test_more_than_the_mean_public_image_comes_back(
    cities: dict[str, tuple[Scene, ...]], public: tuple[np.ndarray, np.ndarray]
) -> None:
    exchange, truth = attacked.message("plain-frozen-embedding", cities["aachen"][:1], model=MODEL)
    guess = mlp_gradient(exchange, *public)
    assert guess is not None
    mean = public[0].mean(axis=0, keepdims=True).round().astype(np.uint8)
    assert correlation(guess, truth.plain, public[0]) > 0.3
    assert (
        score_images(truth.plain, guess, 8).correlation
        > score_images(truth.plain, mean, 8).correlation + 0.05
    )


def test_private_embedding_shows_what_a_frozen_public_one_shows(
    cities: dict[str, tuple[Scene, ...]], public: tuple[np.ndarray, np.ndarray]
) -> None:
    arms = ("per-client-private", "plain-frozen-embedding")
    messages = [attacked.message(arm, cities["aachen"][:1], model=MODEL) for arm in arms]
    private, frozen = (mlp_gradient(exchange, *public) for exchange, _ in messages)
    assert private is not None
    assert frozen is not None
    assert np.abs(private.astype(int) - frozen).max() <= 2
    assert (messages[0][1].stored != messages[0][1].plain).mean() > 0.5


def test_gradients_that_do_not_belong_together_show_nothing(
    cities: dict[str, tuple[Scene, ...]], public: tuple[np.ndarray, np.ndarray]
) -> None:
    exchange, truth = attacked.message("plain-frozen-embedding", cities["aachen"][:1], model=MODEL)
    name = "backbone.blocks.0.mlp.fc1.weight"
    moved = exchange.returned[name] - exchange.sent[name]
    mixed = np.random.default_rng(0).permutation(moved.ravel()).reshape(moved.shape)
    other = replace(exchange, returned=exchange.returned | {name: exchange.sent[name] + mixed})
    guess = mlp_gradient(other, *public)
    assert guess is not None
    assert abs(correlation(guess, truth.plain, public[0])) < 0.2


def test_signs_of_several_steps_are_not_read(
    cities: dict[str, tuple[Scene, ...]], public: tuple[np.ndarray, np.ndarray]
) -> None:
    settings = {"model": MODEL, "optimizer": "adamw", "local_epochs": 2}
    exchange, _ = attacked.message("plain-frozen-embedding", cities["aachen"][:1], **settings)
    assert mlp_gradient(exchange, *public) is None
