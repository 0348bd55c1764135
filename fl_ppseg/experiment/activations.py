"""Bytes of the features that training and scoring hold, counted without computing anything.

A model on torch's `meta` device has the shapes of all tensors and none of their numbers.
"""

import math
from functools import lru_cache, partial
from typing import Any, Final

import torch
from torch import Tensor

from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.learning.evaluation import batch_size
from fl_ppseg.learning.losses import pixel_loss
from fl_ppseg.setr.model import SETR, assemble

ITEM_BYTES: Final = 4
"""Bytes of a weight or feature, fp32."""
GRADIENTS: Final = 1.5
"""Memory of a step over that of the tensors it keeps: gradients of features and allocator overhead,
measured at 1.3 to 1.5 on seven models from 1.3 to 90 million weights, and at 1.5 to 2.0 in twenty
repetitions of one step of the default model."""
RECOMPUTED: Final = 2.2
"""The same with gradient checkpointing, where features of layers come and go: measured at 1.5 to
2.9 on six models (`benchmarks/bench_memory.py`)."""
SCRATCH_BYTES: Final = 40 * 2**20
"""Of torch's kernels."""
OUTSIDE: Final = -1
"""Place of what is kept outside the layers of the backbone."""


class _Kept:
    """What a forward pass keeps for the backward pass, by the layer of the backbone that does."""

    def __init__(self, network: SETR, *, inputs_only: bool) -> None:
        """Listen to the layers of a network.

        Args:
            network: On the `meta` device.
            inputs_only: Count the input of each layer as kept beyond it (gradient checkpointing).
        """
        self._own = {each.untyped_storage()._cdata for each in network.state_dict().values()}
        self._num_tokens = math.prod(network.grid)
        self._inputs_only = inputs_only
        self._layer = OUTSIDE
        self._held: list[Tensor] = []  # alive: the address of a freed storage may be used again
        self.sizes: dict[int, int] = {}
        """Bytes of each storage."""
        self.places: dict[int, set[int]] = {}
        """Layers that keep it."""
        for number, block in enumerate(network.backbone.blocks):
            block.register_forward_pre_hook(partial(self._enter, number))
            block.register_forward_hook(self._leave)

    def keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor that is kept; itself."""
        self._note(tensor, self._layer)
        return tensor

    def _enter(self, number: int, _: object, inputs: Any) -> None:
        self._layer = number
        if self._inputs_only:
            self._note(inputs[0], OUTSIDE)

    def _leave(self, *_: object) -> None:
        self._layer = OUTSIDE

    def _note(self, tensor: Tensor, layer: int) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own and not _is_attention(tensor, self._num_tokens):
            self.sizes[storage._cdata] = storage.nbytes()
            self.places.setdefault(storage._cdata, set()).add(layer)
            self._held.append(tensor)


@lru_cache(maxsize=16)
def training_bytes(
    model: ModelConfig, training: TrainingConfig, num_classes: int, image_size: tuple[int, int]
) -> int:
    """Bytes of the features that one training step holds at its peak.

    With gradient checkpointing the features of one layer at a time, and the input of each; no more
    than without.

    Args:
        model: Section `model`.
        training: Section `training`: batch size, losses and checkpointing.
        num_classes: Channels of the scores.
        image_size: (height, width) of the model's input, in pixels.
    """
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        network = _network(model, num_classes, image_size).train()
        kept = _Kept(network, inputs_only=training.gradient_checkpointing)
        images = torch.empty(training.batch_size, 3, *image_size)
        labels = torch.empty(training.batch_size, *image_size, dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            logits = network(images)
            for scores in (logits.main, *logits.auxiliary):
                pixel_loss(scores, labels, training)
    held = sum(kept.sizes.values())
    if training.gradient_checkpointing:
        layers = dict.fromkeys(range(len(network.backbone.blocks)), 0)
        for storage, places in kept.places.items():
            if OUTSIDE not in places:
                layers[max(places)] += kept.sizes[storage]
        held += max(layers.values()) - sum(layers.values())
    largest = max(kept.sizes.values(), default=0)
    if not training.gradient_checkpointing:
        return round(GRADIENTS * (held + 2 * largest)) + SCRATCH_BYTES
    without = training.model_copy(update={"gradient_checkpointing": False})
    most = training_bytes(model, without, num_classes, image_size)
    return min(most, round(RECOMPUTED * (held + 2 * largest)) + SCRATCH_BYTES)


@lru_cache(maxsize=16)
def scoring_bytes(
    model: ModelConfig, num_classes: int, image_size: tuple[int, int], label_size: tuple[int, int]
) -> int:
    """Bytes of the features and scores that evaluation holds at its peak.

    Args:
        model: Section `model`.
        num_classes: Channels of the scores.
        image_size: (height, width) of the model's input, in pixels.
        label_size: (height, width) of the label maps of the scored images.
    """
    batch = batch_size(num_classes, label_size)
    with torch.random.fork_rng(devices=()), torch.device("meta"):
        network = _network(model, num_classes, image_size).train()
        kept = _Kept(network, inputs_only=False)
        with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            network(torch.empty(1, 3, *image_size))
    features = batch * 3 * max(kept.sizes.values(), default=0)
    scores = ITEM_BYTES * batch * num_classes * math.prod(label_size)
    return features + 2 * scores + SCRATCH_BYTES


def _network(model: ModelConfig, num_classes: int, image_size: tuple[int, int]) -> SETR:
    bare = model.model_copy(update={"pretrained": False, "weights": None})
    return assemble(bare, num_classes, image_size)


def _is_attention(tensor: Tensor, num_tokens: int) -> bool:
    """Whether it is an attention matrix, which the CPU's fused attention does not keep."""
    return tensor.ndim >= 3 and tensor.shape[-1] == tensor.shape[-2] >= num_tokens
