"""The subspace that tokens span: wide models give the image away, narrow ones do not."""

from dataclasses import replace

import attacked
import numpy as np
import pytest

from fl_ppseg.audit.attacks.chains import spanned_gradient
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.data.dataset import Scene
from fl_ppseg.leaks.scores import score_images

WIDE = {"embed_dim": 384, "depth": 1, "weights": None}
"""Twelve times as many channels as an image of 32x64 has tokens."""
MIDDLE = {"embed_dim": 128, "depth": 1, "weights": None}
NARROW = {"embed_dim": 32, "depth": 1, "weights": None}
FROZEN = "plain-frozen-embedding"


def ssim(truth: np.ndarray, guess: np.ndarray | None) -> float:
    assert guess is not None
    assert guess.shape == (1, *truth.shape[1:])
    return max(score_images(one[None], guess, 8).ssim for one in truth)


@pytest.mark.parametrize(
    ("arm", "optimizer"),
    [
        (FROZEN, "sgd"),
        (FROZEN, "adamw"),
        ("per-client-private", "sgd"),
        ("plain", "sgd"),
    ],
)
def test_of_a_model_wider_than_its_tokens_the_image_comes_back(
    arm: str,
    optimizer: str,
    images: tuple[Scene, ...],
    own_scenes: tuple[np.ndarray, np.ndarray],
) -> None:
    exchange, truth = attacked.message(arm, images[:1], model=WIDE, optimizer=optimizer)
    assert ssim(truth.plain, token_span(exchange, own_scenes[0])) > 0.9


def test_an_image_is_seen_in_its_own_message_alone(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    messages = [attacked.message(FROZEN, [scene], model=WIDE) for scene in images[:2]]
    guesses = [token_span(exchange, own_scenes[0]) for exchange, _ in messages]
    for number, (_, truth) in enumerate(messages):
        assert ssim(truth.plain, guesses[number]) > ssim(truth.plain, guesses[1 - number]) + 0.3


def test_tokens_of_several_images_or_of_several_steps_tell_less(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    shown = [
        ssim(truth.plain, token_span(exchange, own_scenes[0]))
        for exchange, truth in (
            attacked.message(FROZEN, images[:number], model=WIDE, local_epochs=epochs)
            for number, epochs in ((1, 1), (1, 4), (4, 1))
        )
    ]
    assert shown[0] > shown[1] > shown[2] > 0.2


def test_what_spans_all_channels_or_has_no_size_tells_nothing(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    narrow, _ = attacked.message(FROZEN, images[:1], model=NARROW, learning_rate=10.0)
    assert token_span(narrow, own_scenes[0]) is None
    assert spanned_gradient(narrow, *own_scenes) is None
    signs, _ = attacked.message(FROZEN, images[:1], model=WIDE, optimizer="adamw", local_epochs=2)
    assert token_span(signs, own_scenes[0]) is None


def test_a_model_of_another_form_is_left_alone(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    exchange, _ = attacked.message(FROZEN, images[:1], model=WIDE)
    fused = "backbone.blocks.0.attn.qkv.weight"
    sent = {name: value for name, value in exchange.sent.items() if name != fused}
    assert token_span(replace(exchange, sent=sent), own_scenes[0]) is None


def test_the_gradient_of_the_mlp_betters_what_the_span_shows(
    images: tuple[Scene, ...], own_scenes: tuple[np.ndarray, np.ndarray]
) -> None:
    """Means over images: of a model so narrow that its span tells only a part."""
    found = []
    for scene in images:
        exchange, truth = attacked.message(FROZEN, [scene], model=MIDDLE)
        guesses = (
            token_span(exchange, own_scenes[0]),
            mlp_gradient(exchange, *own_scenes),
            spanned_gradient(exchange, *own_scenes),
        )
        found.append([ssim(truth.plain, guess) for guess in guesses])
    span, gradient, both = np.mean(found, axis=0)
    assert both > max(span, gradient)
