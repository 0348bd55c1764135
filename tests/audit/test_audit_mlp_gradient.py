"""Tokens out of the first MLP's gradient: better than the mean public image, and when not."""

from dataclasses import replace

import attacked
import numpy as np

from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import score_images

MODEL = {"embed_dim": 64, "depth": 1}


def correlation(guess: np.ndarray, truth: np.ndarray, public: np.ndarray) -> float:
    """Of what is not in the mean public image."""
    usual = public.mean(axis=0)
    return float(np.corrcoef((guess[0] - usual).ravel(), (truth[0] - usual).ravel())[0, 1])


def test_more_than_the_mean_public_image_comes_back(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    exchange, truth = attacked.message("plain-frozen-embedding", images[:1], model=MODEL)
    guess = mlp_gradient(exchange, *own_scenes)
    assert guess is not None
    mean = own_scenes[0].mean(axis=0, keepdims=True).round().astype(np.uint8)
    assert correlation(guess, truth.plain, own_scenes[0]) > 0.3
    assert (
        score_images(truth.plain, guess, 8).correlation
        > score_images(truth.plain, mean, 8).correlation + 0.05
    )


def test_private_embedding_shows_what_a_frozen_public_one_shows(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    arms = ("per-client-private", "plain-frozen-embedding")
    messages = [attacked.message(arm, images[:1], model=MODEL) for arm in arms]
    private, frozen = (mlp_gradient(exchange, *own_scenes) for exchange, _ in messages)
    assert private is not None
    assert frozen is not None
    assert np.abs(private.astype(int) - frozen).max() <= 2
    assert (messages[0][1].stored != messages[0][1].plain).mean() > 0.5


def test_gradients_that_do_not_belong_together_show_nothing(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    exchange, truth = attacked.message("plain-frozen-embedding", images[:1], model=MODEL)
    name = "backbone.blocks.0.mlp.fc1.weight"
    moved = exchange.returned[name] - exchange.sent[name]
    mixed = np.random.default_rng(0).permutation(moved.ravel()).reshape(moved.shape)
    other = replace(exchange, returned=exchange.returned | {name: exchange.sent[name] + mixed})
    guess = mlp_gradient(other, *own_scenes)
    assert guess is not None
    assert abs(correlation(guess, truth.plain, own_scenes[0])) < 0.2


def test_signs_of_several_steps_are_not_read(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    settings = {"model": MODEL, "optimizer": "adamw", "local_epochs": 2}
    exchange, _ = attacked.message("plain-frozen-embedding", images[:1], **settings)
    assert mlp_gradient(exchange, *own_scenes) is None
