"""Images out of the gradients of patch and position embedding: when they come, and when not."""

from dataclasses import replace

import attacked
import numpy as np
import pytest
import torch

from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.gradients import gradient_of
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixels import to_input
from fl_ppseg.leaks.scores import Scores, score_images
from fl_ppseg.setr.canonical import canonical
from fl_ppseg.setr.names import EMBEDDING_TENSORS, POSITION_TENSOR

WIDE = {"embed_dim": 64}
"""More channels than the 32 blocks of an image."""


def scored(truth: np.ndarray, guess: np.ndarray | None) -> Scores:
    assert guess is not None
    assert guess.shape == (1, *truth.shape[1:])
    return score_images(truth[:1], guess, 8)


@pytest.mark.parametrize(
    ("clip", "epochs", "psnr"),
    [
        (0.0, 1, 60),
        (0.0, 3, 60),  # of one image the steps' gradients add up to a system for that image
        (0.1, 1, 40),  # a short step leaves fewer digits of float32
    ],
)
def test_one_plain_image_comes_back(
    clip: float, epochs: int, psnr: float, images: tuple[Scene, ...]
) -> None:
    exchange, truth = attacked.message(
        "plain", images[:1], model=WIDE, gradient_clip=clip, local_epochs=epochs
    )
    assert scored(truth.plain, closed_form_gradient(exchange)).psnr > psnr


def test_of_encrypted_training_the_ciphertext_comes_back(images: tuple[Scene, ...]) -> None:
    exchange, truth = attacked.message("per-image", images[:1], model=WIDE)
    guess = closed_form_gradient(exchange)
    assert scored(truth.stored, guess).psnr > 60
    assert scored(truth.plain, guess).psnr < 20


@pytest.mark.parametrize(
    ("arm", "form"),
    [
        ("per-image-invariant", "pixel-magnitudes"),
        ("per-image-invariant-spatial", "pixels"),
        ("per-image-invariant-shuffle", "values"),
        ("per-image-invariant-np", "magnitudes"),
    ],
)
def test_of_an_invariant_embedding_the_canonical_form_comes_back(
    arm: str, form: str, images: tuple[Scene, ...]
) -> None:
    exchange, truth = attacked.message(arm, images[:1], model=WIDE, form=form)
    guess = closed_form_gradient(exchange)
    assert guess is not None
    forms = [
        canonical(to_input(torch.from_numpy(i)), form, 8)[:, :3] for i in (guess, truth.stored)
    ]
    assert (forms[0] - forms[1]).square().mean().sqrt() < 1.5 / 255


@pytest.mark.parametrize("arm", ["plain-frozen-embedding", "per-client-private"])
def test_nothing_comes_back_where_the_embedding_stays(arm: str, images: tuple[Scene, ...]) -> None:
    exchange, _ = attacked.message(arm, images[:1])
    assert builtin_arms()[arm].embedding in ("frozen", "private")
    assert closed_form_gradient(exchange) is None


def test_gradients_that_do_not_belong_together_show_nothing(images: tuple[Scene, ...]) -> None:
    exchange, truth = attacked.message("plain", images[:1], model=WIDE)
    noise = np.random.default_rng(0)
    kernel = exchange.returned[EMBEDDING_TENSORS[0]]
    moved = kernel - exchange.sent[EMBEDDING_TENSORS[0]]
    mixed = kernel - moved + noise.permutation(moved.ravel()).reshape(moved.shape)
    other = replace(exchange, returned=exchange.returned | {EMBEDDING_TENSORS[0]: mixed})
    assert abs(scored(truth.plain, closed_form_gradient(other)).correlation) < 0.3


def test_a_batch_gives_a_mixture(images: tuple[Scene, ...]) -> None:
    exchange, truth = attacked.message("plain", images[:4], model=WIDE)
    guess = closed_form_gradient(exchange)
    assert scored(truth.plain, guess).psnr < 25


def test_one_step_of_adamw_tells_the_size_of_the_gradient(images: tuple[Scene, ...]) -> None:
    settings = {"model": WIDE, "weight_decay": 0.01}
    exact, _ = attacked.message("plain", images[:1], **settings)
    adam, truth = attacked.message(
        "plain", images[:1], **settings, optimizer="adamw", learning_rate=3e-3
    )
    for name in (POSITION_TENSOR, EMBEDDING_TENSORS[0]):
        wanted, found = gradient_of(exact, name).value, gradient_of(adam, name)
        near = np.abs(found.value - wanted) < 4 * found.deviation + 0.01 * np.abs(wanted)
        assert near.mean() > 0.98
        assert np.corrcoef(wanted.ravel(), found.value.ravel())[0, 1] > 0.9
    assert scored(truth.plain, closed_form_gradient(adam)).correlation > 0.5


def test_after_several_steps_of_adamw_little_is_left(images: tuple[Scene, ...]) -> None:
    exchange, truth = attacked.message(
        "plain", images[:1], model=WIDE, optimizer="adamw", learning_rate=3e-3, local_epochs=4
    )
    assert scored(truth.plain, closed_form_gradient(exchange)).ssim < 0.5
