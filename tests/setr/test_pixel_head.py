"""Scores that move with the pixels of a ciphertext, and a loss that no order changes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.pixel_order import PixelOrder
from fl_ppseg.data.pixels import to_input
from fl_ppseg.learning import training
from fl_ppseg.learning.owner_view import OwnerView, owner_view
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.pixel_head import PixelHead, flattened, in_place, resized
from fl_ppseg.setr.shipped import WEIGHTS
from fl_ppseg.setr.weights import load_weights, save_weights
from fl_ppseg.system.errors import InputError

SIZE = (32, 64)
CIPHERS = {"pixels": "shuffle-spatial", "pixel-magnitudes": "shuffle-spatial+negative-positive"}
SMALL = {
    "embed_dim": 32, "depth": 2, "num_heads": 2, "decoder": "naive", "decoder_channels": 16,
    "weights": None,
}  # fmt: skip
RNG = np.random.default_rng(3)
IMAGES = (RNG.integers(90, 150, (2, 3, *SIZE)) // 6 * 6).astype(np.uint8)
"""Of few values, so that blocks hold equal pixels."""
LABELS = RNG.integers(0, 19, (2, *SIZE)).astype(np.uint8)
LABELS[:, :5] = 255


def network(form: str | None, **changes: Any) -> SETR:
    config = ModelConfig.model_validate({**SMALL, "invariant": form, "pixel_head": True, **changes})
    model = build_setr(config, 19, SIZE, seed=0).double().eval()
    assert model.pixel_head is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(1))
    return model


def moved(form: str) -> tuple[np.ndarray, np.ndarray, list[PixelOrder]]:
    """Images and labels under new keys."""
    keys = [SubKey.generate() for _ in IMAGES]
    how: dict[str, Any] = {"block_size": 8, "scope": "per-block"}
    ciphertexts = [encrypt(i, k, CIPHERS[form], **how) for i, k in zip(IMAGES, keys, strict=True)]
    orders = [pixel_order(CIPHERS[form], key, SIZE, 8, "per-block") for key in keys]
    labels = [order.permuted(each) for order, each in zip(orders, LABELS, strict=True)]
    return np.stack(ciphertexts), np.stack(labels), orders


def inputs(images: np.ndarray) -> Tensor:
    return to_input(torch.from_numpy(images)).double()


@pytest.mark.parametrize("form", CIPHERS)
def test_scores_move_with_the_pixels_to_the_bit(form: str) -> None:
    model = network(form)
    images, _, orders = moved(form)
    with torch.no_grad():
        plain, found = (model(inputs(each)) for each in (IMAGES, images))
    assert torch.equal(plain.decoder, found.decoder)
    for order, one, other in zip(orders, plain.main.numpy(), found.main.numpy(), strict=True):
        np.testing.assert_array_equal(order.permuted(one), other)


@pytest.mark.parametrize(
    "changes",
    [{}, {"class_balance": 0.5}, {"ohem_fraction": 0.3}, {"loss_size": "labels"}],
    ids=str,
)
@pytest.mark.parametrize("form", CIPHERS)
def test_the_loss_is_the_same_number_under_every_key(form: str, changes: dict[str, Any]) -> None:
    model, config = network(form, num_auxiliary=1, depth=4), TrainingConfig(**changes)
    weights = torch.linspace(0.5, 2, 19).double() if "class_balance" in changes else None

    def loss(images: np.ndarray, labels: np.ndarray) -> float:
        found = training._loss(model(inputs(images)), torch.from_numpy(labels), config, weights)
        return float(found.detach())

    expected = loss(IMAGES, LABELS)
    assert [loss(*moved(form)[:2]) for _ in range(4)] == [expected] * 4
    wrong = np.stack([LABELS[1], LABELS[0]])
    assert loss(IMAGES, wrong) != expected


def test_the_gradient_is_the_same_under_every_key() -> None:
    model, config = network("pixels"), TrainingConfig()

    def gradient(images: np.ndarray, labels: np.ndarray) -> Tensor:
        loss = training._loss(model(inputs(images)), torch.from_numpy(labels), config, None)
        parts = torch.autograd.grad(loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in parts])

    expected, found = gradient(IMAGES, LABELS), gradient(*moved("pixels")[:2])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", CIPHERS)
def test_an_owner_sees_what_is_in_place_whatever_the_key(form: str) -> None:
    model = network(form)
    images, _, orders = moved(form)
    with torch.no_grad():
        plain = model(inputs(IMAGES))
        expected = in_place(plain.main, plain.decoder, 8)
        found = OwnerView(model, 8, orders)(inputs(images))
    assert found.decoder is None and torch.equal(found.main, expected)
    pixels = plain.main - flattened(plain.decoder, 8, SIZE)
    torch.testing.assert_close(expected, resized(plain.decoder, SIZE) + pixels)


def test_windows_of_a_frame_carry_both_kinds_of_scores() -> None:
    model = network("pixels")
    frame = RNG.integers(0, 256, (1, 3, 48, 96)).astype(np.uint8)
    with torch.no_grad():
        found = SlidingWindows(model)(inputs(frame))
        corner = model(inputs(frame[..., :32, :64]))
    assert found.main.shape == (1, 19, 48, 96) and found.decoder.shape == (1, 19, 24, 48)
    torch.testing.assert_close(found.main[..., :8, :16], corner.main[..., :8, :16])


def test_an_owner_needs_an_order_for_each_image() -> None:
    with pytest.raises(ValueError, match="expected 1 images, got 2"):
        OwnerView(network("pixels"), 8, [PixelOrder(np.arange(64)[None], 8)])(inputs(IMAGES))
    model = network("pixels")
    assert owner_view(model, model, [None, None]) is model
    with pytest.raises(ValueError, match="expected 2 orders, got 1"):
        owner_view(model, model, [None, PixelOrder(np.arange(64)[None], 8)])


def test_a_new_head_scores_nothing() -> None:
    head = PixelHead(32, 19, "pixels", 8)
    tokens = torch.randn(2, 32, 4, 8)
    assert not head(inputs(IMAGES).float(), tokens).any()


def test_of_plain_images_the_head_adds_to_scores_in_place() -> None:
    model = network(None)
    with torch.no_grad():
        found = model(inputs(IMAGES))
        model.pixel_head = None
        bare = model(inputs(IMAGES))
    assert found.decoder is None and found.main.shape == (2, 19, *SIZE)
    assert not torch.allclose(found.main, resized(bare.main, SIZE))


# Which arms and weights go with it.

ARMS = builtin_arms()


@pytest.mark.parametrize(
    "arm", ["per-image-invariant-labels", "per-image-invariant-spatial-labels"]
)
def test_arms_with_encrypted_labels_get_the_head(arm: str) -> None:
    found = model_settings(ModelConfig(), arm, ARMS[arm])
    assert found.pixel_head and found.invariant in CIPHERS


def test_the_head_is_refused_where_labels_are_in_place() -> None:
    model = ModelConfig.model_validate({"pixel_head": True})
    assert model_settings(model, "plain", ARMS["plain"]).pixel_head
    for arm in ("per-image-invariant", "per-image", "per-client-private"):
        with pytest.raises(InputError, match=f"arm {arm}: model.pixel_head"):
            model_settings(model, arm, ARMS[arm])


def test_encrypted_labels_need_pixels_that_stay_whole() -> None:
    arm = ARMS["per-image-invariant-shuffle"].model_copy(update={"labels": "encrypted"})
    with pytest.raises(
        InputError, match="arm own: labels can be encrypted where pixels move whole"
    ):
        model_settings(ModelConfig(), "own", arm)
    with pytest.raises(ValueError, match="embedding invariant"):
        ArmConfig(note="", labels="encrypted")
    values = ARMS["per-image-invariant-labels"].model_dump()
    for other in ({"block_scope": "common"}, {"key_mode": "shared", "key_lifetime": "derived"}):
        with pytest.raises(ValueError, match="key_mode per-image and block_scope per-block"):
            ArmConfig.model_validate(values | other)
    config = ModelConfig.model_validate({**SMALL, "invariant": "values", "pixel_head": True})
    with pytest.raises(InputError, match=r"expected model\.invariant pixels or"):
        build_setr(config, 19, SIZE, seed=0)


def test_weights_without_a_head_leave_it_as_zero(tmp_path: Any) -> None:
    bare = build_setr(
        ModelConfig.model_validate({**SMALL, "invariant": "pixels"}), 19, SIZE, seed=2
    )
    save_weights(bare, tmp_path / "w.safetensors")
    model = build_setr(
        ModelConfig.model_validate({**SMALL, "invariant": "pixels", "pixel_head": True}),
        19, SIZE, seed=3,
    )  # fmt: skip
    load_weights(model, tmp_path / "w.safetensors")
    with torch.no_grad():
        found = model(inputs(IMAGES).float())
        expected = bare(inputs(IMAGES).float()).main
    assert torch.equal(found.decoder, expected)
    assert torch.equal(found.main, flattened(expected, 8, SIZE))


@pytest.mark.parametrize("form", CIPHERS)
def test_shipped_weights_differ_from_those_without_a_head_in_the_head_alone(form: str) -> None:
    own = WEIGHTS / f"setr_procedural_{form}_pixel-head.safetensors"
    config = ModelConfig.model_validate({"invariant": form})
    with_head = build_setr(config.model_copy(update={"pixel_head": True}), 19, (64, 128), seed=0)
    assert own.is_file() and any(bool(p.any()) for p in with_head.pixel_head.query.parameters())
    bare = build_setr(config, 19, (64, 128), seed=0).state_dict()
    rest = {n: v for n, v in with_head.state_dict().items() if not n.startswith("pixel_head.")}
    assert rest.keys() == bare.keys() and all(torch.equal(rest[n], bare[n]) for n in bare)
    assert isinstance(with_head, nn.Module)
