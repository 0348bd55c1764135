"""The audit's messages: those of the real ClientApp, and what the images were apart from them."""

import tempfile
from pathlib import Path
from typing import Any

import attacked
import numpy as np
import pytest
import small_federation as small
import torch
from torch.nn import functional

from fl_ppseg.audit.update import overhear
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.views import fit
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError

ARMS = ("plain", "per-image", "per-client-private", "plain-frozen-embedding", "per-image-invariant")
FORM = "pixel-magnitudes"


@pytest.fixture(scope="module")
def images(cities: dict[str, tuple[Scene, ...]]) -> tuple[Scene, ...]:
    return cities["aachen"][:3]


def config(arm: str, **training: Any) -> Config:
    return small.config(None, arms=[arm], training=attacked.ONE_STEP | training)


def weights(arm: str) -> Arrays:
    network = small.model(invariant=FORM if arm == "per-image-invariant" else None)
    return {name: value.numpy() for name, value in small.weights_of(network).items()}


@pytest.mark.parametrize("arm", ARMS)
def test_message_holds_what_may_leave_the_node_and_no_more(
    arm: str, images: tuple[Scene, ...]
) -> None:
    sent = weights(arm)
    exchange, _ = overhear(config(arm), arm, sent, images)
    kept = {"per-client-private", "plain-frozen-embedding"}
    assert exchange.sent.keys() == sent.keys()
    assert sent.keys() - exchange.returned.keys() == (
        set(EMBEDDING_TENSORS) if arm in kept else set()
    )
    assert (exchange.num_examples, exchange.num_steps) == (3, 1)
    assert any((exchange.returned[n] != sent[n]).any() for n in exchange.returned)


def test_an_audit_of_coded_messages_sees_what_was_decoded(images: tuple[Scene, ...]) -> None:
    sent = weights("plain")
    coded = {"codec": "low-rank", "codec_rank": 4, "weights_codec": "int8", "gradient_clip": 1.0}
    exchange, _ = overhear(config("plain", **coded), "plain", sent, images)
    assert exchange.returned.keys() == sent.keys()
    assert all(value.shape == sent[name].shape for name, value in exchange.returned.items())
    assert any((exchange.returned[n] != sent[n]).any() for n in sent)


def test_of_frames_the_audit_takes_the_middle_window(images: tuple[Scene, ...]) -> None:
    data = {"fit": "crop", "image_size": [16, 32], "frame_size": [32, 64]}
    settings = small.config(None, arms=["plain"], training=attacked.ONE_STEP, data=data)
    network = small.build_setr(settings.model, small.NUM_CLASSES, (16, 32), seed=0)
    exchange, truth = overhear(settings, "plain", small.arrays_of(network), images)
    fitted = [fit(*scene.load(), (16, 32), "crop")[0] for scene in images]
    np.testing.assert_array_equal(truth.stored, fitted)
    assert exchange.image_size == (16, 32)


def test_truth_is_the_scene_and_what_its_cipher_made_of_it(images: tuple[Scene, ...]) -> None:
    fitted = [fit(*scene.load(), (32, 64), "resize") for scene in images]
    _, plain = overhear(config("plain"), "plain", weights("plain"), images)
    _, encrypted = overhear(config("per-image"), "per-image", weights("per-image"), images)
    for truth in (plain, encrypted):
        np.testing.assert_array_equal(truth.plain, [image for image, _ in fitted])
        np.testing.assert_array_equal(truth.labels, [labels for _, labels in fitted])
    np.testing.assert_array_equal(plain.stored, plain.plain)
    assert (encrypted.stored != encrypted.plain).any()
    before, after = (np.sort(to_blocks(i, 8)) for i in (encrypted.plain, encrypted.stored))
    np.testing.assert_array_equal(before, after)


def test_reply_is_one_step_down_the_gradient_of_the_true_images(images: tuple[Scene, ...]) -> None:
    sent = weights("plain")
    settings = config("plain", weight_decay=0.0)
    exchange, truth = overhear(settings, "plain", sent, images)
    network = small.model()
    scores = network((torch.from_numpy(truth.plain).float() * 2 - 255) / 255).main
    labels = torch.from_numpy(truth.labels)[:, None].float()
    labels = functional.interpolate(labels, scores.shape[-2:], mode="nearest-exact")[:, 0].long()
    functional.cross_entropy(scores, labels, ignore_index=255).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        wanted = sent[name] - 0.1 * parameter.grad.numpy()
        np.testing.assert_allclose(exchange.returned[name], wanted, atol=1e-6, err_msg=name)


def test_private_embedding_sends_what_a_frozen_public_one_sends(images: tuple[Scene, ...]) -> None:
    sent = weights("plain")
    replies = [
        overhear(config(arm, local_epochs=2), arm, sent, images)[0].returned
        for arm in ("per-client-private", "plain-frozen-embedding")
    ]
    for name, value in replies[0].items():
        np.testing.assert_allclose(value, replies[1][name], atol=2e-6, err_msg=name)


def test_steps_are_counted_as_the_client_takes_them(images: tuple[Scene, ...]) -> None:
    settings = config("plain", batch_size=2, local_epochs=3)
    exchange, _ = overhear(settings, "plain", weights("plain"), images)
    assert (exchange.steps_an_epoch, exchange.num_steps) == (2, 6)


def test_a_centralised_arm_is_asked_for_what_its_owner_agreed_to(
    images: tuple[Scene, ...],
) -> None:
    some = {"federation": {"num_rounds": 1, "fraction_train": 0.34}, "clients": 3}
    settings = small.config(None, arms=["centralised"], training=attacked.ONE_STEP, **some)
    exchange, _ = overhear(settings, "centralised", weights("plain"), images)
    assert exchange.training.pass_fraction == pytest.approx(1 / 3)
    assert exchange.num_steps == 1


def test_nothing_is_left_of_the_owner(
    images: tuple[Scene, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    overhear(config("per-client-private"), "per-client-private", weights("plain"), images[:1])
    assert list(tmp_path.iterdir()) == []


def test_client_that_fails_is_named_as_the_reason(images: tuple[Scene, ...]) -> None:
    sent = weights("plain")
    del sent["norms.0.weight"]
    with pytest.raises(RunError, match="no update to attack: the node failed"):
        overhear(config("plain"), "plain", sent, images)


def test_own_arms_are_found(images: tuple[Scene, ...]) -> None:
    own: ArmConfig = builtin_arms()["per-image"].model_copy(update={"cipher": "shuffle-spatial"})
    settings = small.config(
        None, arms=["own"], arm_table={"own": own.model_dump()}, training=attacked.ONE_STEP
    )
    _, truth = overhear(settings, "own", weights("plain"), images[:1])
    before, after = (to_blocks(i[0], 8).reshape(32, 3, 64) for i in (truth.plain, truth.stored))
    for channel in range(3):
        np.testing.assert_array_equal(np.sort(before[:, channel]), np.sort(after[:, channel]))


def test_an_embedding_that_is_published_fits_the_key_of_the_owners(
    images: tuple[Scene, ...],
) -> None:
    exchange, truth = overhear(config("domain-adaptation"), *_start("domain-adaptation"), images)
    sent, public = (
        torch.from_numpy(arrays[EMBEDDING_TENSORS[0]])
        for arrays in (exchange.sent, weights("domain-adaptation"))
    )
    stored, plain = (
        torch.from_numpy(seen).float() * 2 / 255 - 1 for seen in (truth.stored, truth.plain)
    )
    size = sent.shape[-1]
    torch.testing.assert_close(
        functional.conv2d(stored, sent, stride=size), functional.conv2d(plain, public, stride=size)
    )


def _start(arm: str) -> tuple[str, Arrays]:
    return arm, weights(arm)
