"""Weights made to show images: what comes back of a client that trains as agreed, and what not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from timm.layers import SwiGLUPacked

from fl_ppseg.audit.attacks.imprint import imprint
from fl_ppseg.audit.attacks.imprinting import imprinted, is_plain
from fl_ppseg.audit.attacks.neurons import kept
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.update import Truth, client, overhear
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.views import fit
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.learning.privacy import noisy
from fl_ppseg.learning.updates import difference, moved
from fl_ppseg.setr.canonical import canonical
from fl_ppseg.setr.names import EMBEDDING_TENSORS

SIZE = (32, 64)
ROUNDS = 6
AS_TRAINED = {
    "optimizer": "adamw",
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "gradient_clip": 1.0,
    "batch_size": 2,
}
Read = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def public(cities: dict[str, tuple[Scene, ...]]) -> np.ndarray:
    """Images of the coordinator's own; the client is aachen."""
    others = [scene for city, part in cities.items() if city != "aachen" for scene in part]
    return np.stack([fit(*scene.load(), SIZE, "resize")[0] for scene in others])


def played(
    arm: str,
    scenes: Sequence[Scene],
    public: np.ndarray,
    *,
    form: str | None = None,
    model: dict[str, Any] | None = None,
    rounds: int = ROUNDS,
    **training: Any,
) -> tuple[list[Exchange], Truth]:
    """The last rounds of a run in which the coordinator hands out weights of its own."""
    settings = small.config(
        None,
        arms=[arm],
        data={"image_size": public.shape[2:]},
        model={"embed_dim": 128, "depth": 2} | (model or {}),
        training=AS_TRAINED | training,
        federation={"num_rounds": 10},
    )
    section = settings.model.model_copy(update={"invariant": form})
    network = initial_model(
        settings.model_copy(update={"model": section}), small.NUM_CLASSES, seed=0
    )
    exchanges: list[Exchange] = []
    with client(settings, arm, small.arrays_of(network), scenes) as owner:
        for round in range(11 - rounds, 11):
            made = imprinted(network, public, exchanges)
            exchanges.append(kept(owner.answer(made, round)))
    return exchanges, owner.truth


def likeness(truth: np.ndarray, guesses: np.ndarray | None) -> list[float]:
    """SSIM of each image's likest guess."""
    assert guesses is not None
    pairs = ([score_images(i[None], g[None], 8).ssim for g in guesses] for i in truth)
    return [max(scores) for scores in pairs]


@pytest.mark.parametrize("arm", ["plain-frozen-embedding", "per-client-private"])
def test_images_come_back_from_rounds_of_adamw_as_agreed(
    arm: str, cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    exchanges, truth = played(arm, cities["aachen"][:4], public)
    assert exchanges[0].num_steps == 2
    usual = public.mean(axis=0, keepdims=True).astype(np.uint8)
    assert np.mean(likeness(truth.plain, imprint(exchanges, public))) > 0.85
    assert np.mean(likeness(truth.plain, usual)) < 0.5


@pytest.mark.parametrize(
    "model",
    [
        {"decoder": "naive", "depth": 4, "num_auxiliary": 1},
        {"decoder": "mla", "depth": 4, "num_auxiliary": 1},
        {"backbone": "vit_tiny_patch16_224", "embed_dim": None, "depth": None, "num_heads": None},
    ],
    ids=["auxiliary", "mla", "class-token"],
)
def test_of_one_image_any_model_shows_it(
    model: dict[str, Any], cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    exchanges, truth = played(
        "plain-frozen-embedding", cities["aachen"][:1], public, model=model, rounds=1
    )
    assert likeness(truth.plain, imprint(exchanges, public))[0] > 0.85


def test_of_an_uploaded_embedding_the_ciphertext_comes_back(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    encrypted = partial(encrypt, cipher="shuffle", block_size=8, scope="common")
    keys = [SubKey.from_bytes(bytes([k] * 32)) for k in range(len(public))]
    as_read = np.stack([encrypted(image, key) for image, key in zip(public, keys, strict=True)])
    exchanges, truth = played("per-image", cities["aachen"][:1], as_read, rounds=1)
    guesses = imprint(exchanges, as_read)
    shown, plain = (likeness(images, guesses)[0] for images in (truth.stored, truth.plain))
    assert shown > max(0.45, plain + 0.2)


def test_of_an_invariant_embedding_the_canonical_form_comes_back(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    exchanges, truth = played(
        "per-image-invariant-shuffle", cities["aachen"][:1], public, form="values", rounds=1
    )
    guesses = imprint(exchanges, public)
    assert guesses is not None
    shown, stored = (
        canonical(to_input(torch.from_numpy(i)), "values", 8)[:, :3].flatten()
        for i in (guesses, truth.stored)
    )
    assert float(torch.corrcoef(torch.stack([shown, stored]))[0, 1]) > 0.95
    assert likeness(truth.plain, guesses)[0] < 0.4


def test_under_the_noise_of_a_node_nothing_comes_back(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    (exchange,), truth = played("plain-frozen-embedding", cities["aachen"][:1], public, rounds=1)
    assert likeness(truth.plain, imprint([exchange], public))[0] > 0.85
    start = {name: exchange.sent[name] for name in exchange.returned}
    update = noisy(difference(exchange.returned, start), 1e-6)
    loud = replace(exchange, returned=moved(start, update))
    guesses = imprint([loud], public)
    usual = public.mean(axis=0, keepdims=True).astype(np.uint8)
    shown = 0.0 if guesses is None else likeness(truth.plain, guesses)[0]
    assert shown < likeness(truth.plain, usual)[0]


def test_ordinary_weights_show_nothing(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    settings = small.config(None, arms=["plain-frozen-embedding"], data={"image_size": SIZE})
    weights = small.arrays_of(small.model())
    exchange, _ = overhear(settings, "plain-frozen-embedding", weights, cities["aachen"][:1])
    assert imprint([exchange], public) is None
    assert imprint([], public) is None


def test_more_blocks_than_neurons_show_nothing(
    cities: dict[str, tuple[Scene, ...]], public: np.ndarray
) -> None:
    narrow = {"embed_dim": 16, "num_heads": 1, "depth": 1}
    large = public.repeat(2, axis=2).repeat(2, axis=3)  # 128 blocks, 64 neurons
    exchanges, _ = played(
        "plain-frozen-embedding", cities["aachen"][:1], large, model=narrow, rounds=2
    )
    assert imprint(exchanges, large) is None


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        ({"embed_dim": 128}, True),
        ({"backbone": "vit_tiny_patch16_224"}, True),
        ({"embed_dim": 8, "num_heads": 1}, False),
        ({"backbone": "vit_pwee_patch16_reg1_gap_256"}, False),  # no matrix for all three
        ({"backbone": "vit_base_patch16_clip_224"}, False),  # a norm before the first layer
        ({"backbone": "vit_small_patch14_reg4_dinov2", "patch_size": 16}, True),
    ],
)
def test_models_of_another_form_are_told_apart(model: dict[str, Any], fits: bool) -> None:
    given = {} if "backbone" not in model else dict.fromkeys(("embed_dim", "depth", "num_heads"))
    with torch.device("meta"):
        assert is_plain(small.model(**given | model)) == fits


def test_gated_layers_are_told_apart() -> None:
    """Those of ViT-g/14, which is larger than any model that is built here."""
    network = small.model(embed_dim=128)
    network.backbone.blocks[0].mlp = SwiGLUPacked(128, 512)
    assert not is_plain(network)


def test_the_embedding_stays_as_it_is(public: np.ndarray) -> None:
    network = small.model(embed_dim=128)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    made = imprinted(network, public)
    assert made.keys() == before.keys()
    for name in EMBEDDING_TENSORS:
        np.testing.assert_array_equal(made[name], before[name].numpy())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
