"""Gradient checkpointing: every layer is computed twice, and no bit of an update changes."""

from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.shard import Manifest, Shard, ShardPart
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.names import EMBEDDING_TENSORS

SIZE = (32, 64)
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "invariant": {"invariant": "pixels", "pixel_head": True},
    "mla, auxiliary heads, dropout": {"decoder": "mla", "depth": 4, "num_auxiliary": 2}
    | {"dropout": 0.3, "class_token": True},
    "timm": {"backbone": "vit_tiny_patch16_224", "patch_size": None, "embed_dim": None}
    | {"depth": None, "num_heads": None},
}


def shard() -> Shard:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (4, 1, 3, *SIZE), dtype=np.uint8)
    manifest = Manifest(1, "ulm", "", 8, 4, 1, [])
    empty = np.zeros((0, 3, *SIZE), np.uint8)
    return Shard([ShardPart(manifest, images, images[:, :, 0] // 16, empty, np.zeros(0, np.uint8))])


def updated(model: Any, weights: Any, **options: Any) -> tuple[str, float | None, int]:
    """Bits and loss of an update, and how often the first layer was begun."""
    calls = []
    hook = model.backbone.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    config = TrainingConfig(batch_size=2, auxiliary_weight=0.4, **options.pop("training", {}))
    try:
        done = local_update(model, weights, {}, shard(), config, Position(1, 2), 5, **options)
    finally:
        hook.remove()
    return small.bits(done.weights), done.loss, len(calls)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen embedding"])
def test_no_bit_changes_and_layers_are_computed_again(name: str, frozen: bool) -> None:
    model = small.model(**MODELS[name])
    weights = small.weights_of(model)
    embedding = [each for each in EMBEDDING_TENSORS if each in weights]
    rates = dict.fromkeys(embedding, 0.0) if frozen else {}
    plain = updated(model, weights, rates=rates)
    again = updated(model, weights, rates=rates, training={"gradient_checkpointing": True})
    assert again[:2] == plain[:2]
    assert small.bits(weights) != plain[0]
    assert (plain[2], again[2]) == (2, 4)  # two steps
    assert updated(model, weights, rates=rates) == plain  # a model that serves again forgets it


def test_gradients_are_the_same_to_the_bit() -> None:
    model = small.model(depth=3)
    images = torch.rand(2, 3, *SIZE) * 2 - 1
    found = []
    for is_on in (False, True):
        model.set_grad_checkpointing(is_on)
        model.zero_grad()
        torch.autograd.backward(model(images).main.square().mean())
        found.append(small.bits({n: p.grad.numpy() for n, p in model.named_parameters()}))
    assert found[0] == found[1]
