"""The local update: a pure function of weights, private state, shard, config and seed.

It sets its own thread count and random state and restores the caller's, so that it gives the same
bits in any process on CPU. It knows neither keys nor ciphers.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import Shard
from fl_ppseg.learning.batches import Step, batches, steps_of
from fl_ppseg.learning.losses import class_weights, pixel_loss
from fl_ppseg.learning.reach import poly
from fl_ppseg.setr.model import SETR, Logits
from fl_ppseg.setr.names import NECK_PREFIX, is_of_head
from fl_ppseg.system.files import Progress

MAX_MULTIPLIED: Final = 512
"""Tokens of an image up to which attention is computed as products of matrices on a CPU in
bfloat16. torch's fused kernel is slower there than in fp32 (its backward pass by two to three
times), and its advantage, not to keep the attention matrix, is small for few tokens."""


@dataclass(frozen=True)
class Position:
    """Position of a local update in the whole training."""

    round: int
    """Round from 1."""
    num_rounds: int


@dataclass(frozen=True)
class LocalUpdate:
    """Result of a local update."""

    weights: dict[str, Tensor]
    """All tensors of the model that are not private, on CPU."""
    private: dict[str, Tensor] = field(repr=False)
    """The private tensors, on CPU: key material."""
    loss: float | None
    """Mean loss of the steps with a labelled pixel, weighted by their views; None: no step had one,
    so that nothing was learnt."""
    num_examples: int
    """Training images of the shard; 0 if no step had a labelled pixel."""
    seconds: float


def local_update(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    private: Mapping[str, Tensor],
    shard: Shard,
    config: TrainingConfig,
    position: Position,
    seed: int,
    rates: Mapping[str, float] = {},
    device: str = "cpu",
    on_step: Progress | None = None,
) -> LocalUpdate:
    """Train the global weights on one client's images.

    Args:
        model: The architecture; its own weights are overwritten.
        weights: Global weights by name.
        private: This client's private tensors by name; with `weights` they are the whole state.
        shard: Its images, encrypted by the vault.
        config: Optimiser, schedule and losses.
        position: Round and number of rounds, for the schedule and the random state.
        seed: Seed of the run; the random state also depends on the round and the shard's client.
        rates: Factors on the learning rate by name, 1 if not given; 0: the tensor is frozen.
        device: Where to compute.
        on_step: Called with (steps done, steps in all).

    Returns:
        The updated weights, the loss and the number of images.
    """
    start = time.perf_counter()
    clients = [part.manifest.client for part in shard.parts]
    with _reproducible(config.num_threads, seed_of(seed, position.round, clients)) as generator:
        if isinstance(model, SETR):
            model.set_grad_checkpointing(config.gradient_checkpointing)
            model.set_fused_attention(not _multiplies(model, config, torch.device(device)))
        model.load_state_dict({**weights, **private})
        model.to(device).train()
        optimizer = _optimizer(model, config, rates)
        steps = steps_of(shard, config, generator)
        loss = _train(model, optimizer, shard, steps, config, position, on_step)
        if isinstance(model, SETR):
            model.set_fused_attention(True)
        state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return LocalUpdate(
        weights={name: value for name, value in state.items() if name not in private},
        private={name: state[name] for name in private},
        loss=loss,
        num_examples=len(shard) if loss is not None else 0,
        seconds=time.perf_counter() - start,
    )


def seed_of(seed: int, round: int, clients: Sequence[str]) -> int:
    """Seed of the random state of a local update; public, so that a run can be repeated.

    Args:
        seed: Of the run.
        round: From 1.
        clients: Clients of the images, in the order of the shard's parts.
    """
    digest = hashlib.sha256(f"{seed}/{round}/{'+'.join(clients)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    shard: Shard,
    steps: Sequence[Step],
    config: TrainingConfig,
    position: Position,
    on_step: Progress | None,
) -> float | None:
    device = next(model.parameters()).device
    weights = _class_weights(shard, config, device)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    anchor = [p.detach().clone() for p in _trainable(model)] if config.proximal_mu else []
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=_amp(config, device))
    losses: list[tuple[Tensor, int]] = []  # read at the end: to read one waits for the device
    for step, (images, labels, is_labelled) in enumerate(batches(shard, steps, device)):
        progress = (position.round - 1 + step / len(steps)) / position.num_rounds
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * poly(progress, config.poly_power)
        with autocast:
            loss = _loss(model(to_input(images)), labels, config, weights)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss + _proximal(model, anchor, config.proximal_mu))
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(_trainable(model), config.gradient_clip)
        optimizer.step()
        if is_labelled:
            losses.append((loss.detach(), len(images)))
        if on_step is not None:
            on_step(step + 1, len(steps))
    if not losses:
        return None
    return sum(float(loss) * n for loss, n in losses) / sum(n for _, n in losses)


def _loss(logits: Logits, labels: Tensor, config: TrainingConfig, weights: Tensor | None) -> Tensor:
    lost = partial(
        pixel_loss,
        labels=labels,
        config=config,
        weights=weights,
        in_any_order=logits.decoder is not None,
    )
    loss = lost(logits.main)
    for auxiliary in logits.auxiliary:
        loss = loss + config.auxiliary_weight * lost(auxiliary)
    return loss


def _class_weights(shard: Shard, config: TrainingConfig, device: torch.device) -> Tensor | None:
    """`class_weights` of a client, by the label maps of its images as they are."""
    if config.class_balance == 0:
        return None
    counts = shard.label_counts()[:IGNORE_INDEX]
    return torch.from_numpy(class_weights(counts, config.class_balance)).to(device)


def _proximal(model: nn.Module, anchor: list[Tensor], mu: float) -> Tensor:
    """FedProx's term mu/2 * |w - w_global|^2 (Li et al. 2020, equation 2)."""
    squares = [((p - a) ** 2).sum() for p, a in zip(_trainable(model), anchor, strict=False)]
    return mu / 2 * torch.stack(squares).sum() if squares else torch.zeros(())


def _optimizer(
    model: nn.Module, config: TrainingConfig, rates: Mapping[str, float]
) -> torch.optim.Optimizer:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    has_neck = any(name.startswith(NECK_PREFIX) for name, _ in model.named_parameters())
    for name, parameter in model.named_parameters():
        factor = rates.get(name, 1.0)
        parameter.requires_grad_(factor > 0)
        if factor == 0:
            continue
        head = config.head_multiplier if is_of_head(name, has_neck) else 1.0
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((config.learning_rate * head * factor, decay), []).append(parameter)
    settings = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, momentum=config.momentum)
    return torch.optim.AdamW(settings, fused=True)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _amp(config: TrainingConfig, device: torch.device) -> bool:
    """Whether the local update uses autocast to bfloat16."""
    if device.type == "cpu":
        return config.amp_cpu and _cpu_computes_in_bf16()
    return config.amp and device.type == "cuda" and torch.cuda.is_bf16_supported()


def _multiplies(model: SETR, config: TrainingConfig, device: torch.device) -> bool:
    """Whether attention is computed as products of matrices, which is faster (`MAX_MULTIPLIED`)."""
    is_small = math.prod(model.grid) <= MAX_MULTIPLIED
    return device.type == "cpu" and _amp(config, device) and is_small


def _cpu_computes_in_bf16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16 natively."""
    if not hasattr(torch.cpu, "get_capabilities"):  # older releases
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@contextmanager
def _reproducible(num_threads: int, seed: int) -> Iterator[np.random.Generator]:
    """Set thread count and random state, and restore the caller's at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield np.random.Generator(np.random.Philox(seed))
    finally:
        torch.set_num_threads(threads)
