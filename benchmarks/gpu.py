"""Local updates and a federated round on a GPU, without Flower and Ray; a dry run on the CPU.

    python benchmarks/gpu.py [--minutes 8] [--dry]

1. **The rate of the device**: a matrix product of bfloat16 of 8192 x 8192, best of ten.
2. **Local updates** of ViT-B and ViT-L with the decoders PUP and MLA at 768x768, by
   `fl_ppseg.learning.training.local_update`, beside the same training as one would write it first:
   no pinned memory, no batch ahead, the loss read in every step, AdamW as PyTorch chooses; and the
   same with the model compiled (`torch.nn.Module.compile`), how many times as fast it is and the
   seconds until it is. Images a second, their ratio, most memory of ours, and the model's FLOPs (of
   forward and backward, as PyTorch counts them) as a share of 1.
3. **One round of 18 clients** of the default model in this process, mean and server's step
   included; on the GPU and on the CPU in float32: the largest difference of a weight, over the
   largest change.

--dry: tiny sizes, so that the script is known to run before there is a GPU.
"""

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import Shard, ShardPart
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.build import build_architecture
from strategies.aggregation.server_optimizer import ServerOptimizer
from strategies.aggregation.streaming_mean import StreamingMean

NUM_CLASSES: Final = 19
BACKBONES: Final = {"ViT-B": "vit_base_patch16_384", "ViT-L": "vit_large_patch16_384"}
NOWHERE: Final = np.zeros((0, 3, 16, 16), np.uint8)


class Sizes(NamedTuple):
    """Of a run."""

    side: int
    batch: int
    steps: int
    matrix: int
    clients: int
    backbones: dict[str, dict[str, Any]]


REAL: Final = Sizes(
    768, 8, 12, 8192, 18, {name: {"backbone": own} for name, own in BACKBONES.items()}
)
TINY: Final = {"patch_size": 16, "embed_dim": 32, "depth": 4, "num_heads": 2}
DRY: Final = Sizes(64, 2, 2, 64, 2, {"tiny": {"backbone": "vit", "weights": None, **TINY}})


def shard_of(num_images: int, size: tuple[int, int], client: str, seed: int) -> Shard:
    """Noise and label maps of noise, as an encrypted shard holds them."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (num_images, 1, 3, *size), np.uint8)
    labels = draw.integers(0, NUM_CLASSES, (num_images, 1, *size), np.uint8)
    about = SimpleNamespace(client=client, num_heldout=0, window=None, is_of_round=False)
    manifest = cast(Any, about)
    return Shard([ShardPart(manifest, images, labels, NOWHERE, NOWHERE[:, 0])])


def seconds(act: Callable[[], object], device: str) -> float:
    """Wall time, until the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate(side: int, device: str) -> float:
    """FLOP/s of a product of bfloat16 matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def naive_update(model: nn.Module, shard: Shard, config: TrainingConfig, device: str) -> float:
    """The same steps as one would write them first; the loss."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    total = 0.0
    for start in range(0, len(shard), config.batch_size):
        chosen = list(range(start, min(start + config.batch_size, len(shard))))
        images, labels = (
            torch.from_numpy(a).to(device) for a in shard.batch(chosen, [0] * len(chosen))
        )
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            scores = model(to_input(images)).main
            labels = functional.interpolate(labels[:, None].float(), size=scores.shape[-2:])[:, 0]
            loss = functional.cross_entropy(scores.float(), labels.long(), ignore_index=255)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        total += loss.item()
    return total


def flops_of(model: nn.Module, side: int, device: str) -> int:
    """FLOPs of forward and backward of one image."""
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(model(torch.zeros(1, 3, side, side, device=device)).main.mean())
    return int(counter.get_total_flops())


def update_row(section: dict[str, Any], sizes: Sizes, device: str, rate: float) -> str:
    """Images a second of local updates of one model, and what they are of."""
    size = (sizes.side, sizes.side)
    model = build_architecture(ModelConfig.model_validate(section), NUM_CLASSES, size).to(device)
    flops = flops_of(model, sizes.side, device)
    start = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
    shard = shard_of(sizes.batch * sizes.steps, size, "a", 0)
    training = TrainingConfig(batch_size=sizes.batch, num_threads=torch.get_num_threads())

    def ours() -> object:
        return local_update(model, start, {}, shard, training, Position(1, 1), 0, device=device)

    def naive() -> object:
        return naive_update(model, shard, training, device)

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    ours()  # warms up
    used = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device == "cuda" else "-"
    naive()
    pairs = [(seconds(ours, device), seconds(naive, device)) for _ in range(3)]
    speed = len(shard) / min(own for own, _ in pairs)
    ratio = statistics.median(first / own for own, first in pairs)
    model.compile(backend="inductor" if device == "cuda" else "aot_eager")  # which needs no C++
    until_compiled = seconds(ours, device)
    compiled = min(seconds(ours, device) for _ in range(3))
    gain = f"{min(own for own, _ in pairs) / compiled:.2f} ({until_compiled:.0f} s)"
    return f"{speed:.1f} | {ratio:.2f} | {gain} | {used} | {flops * speed / rate:.0%}"


def updates(sizes: Sizes, device: str, rate: float, until: float) -> Iterator[str]:
    yield "| model | decoder | images/s | to naive | compiled | GiB | of the matmul rate |"
    yield "|---|---|---|---|---|---|---|"
    for name, backbone in sizes.backbones.items():
        for decoder in ("pup", "mla"):
            row = "no time left | | | |"
            if time.monotonic() <= until:
                section = backbone | {"decoder": decoder, "weights": None}
                row = update_row(section, sizes, device, rate)
            yield f"| {name} | {decoder} | {row} |"


def federated_round(sizes: Sizes, device: str, *, amp: bool) -> dict[str, np.ndarray]:
    """The weights after one round of the default model, from the same start for every device."""
    size = (64, 128)
    model = build_architecture(ModelConfig(), NUM_CLASSES, size)
    start = {k: v.detach().clone() for k, v in model.state_dict().items()}
    arrays = {k: v.numpy().copy() for k, v in start.items()}
    mean = StreamingMean(arrays)
    # SGD: AdamW's first steps have a gradient's sign, which rounding decides where it is near 0
    training = TrainingConfig(batch_size=4, amp=amp, optimizer="sgd", learning_rate=0.01)
    for client in range(sizes.clients):
        shard = shard_of(8, size, f"c{client:02d}", client)
        update = local_update(model, start, {}, shard, training, Position(1, 1), 0, device=device)
        mean.add({k: v.numpy() for k, v in update.weights.items()}, update.num_examples)
    return ServerOptimizer(FederationConfig()).apply(arrays, mean.result())


def rounds(sizes: Sizes, device: str) -> Iterator[str]:
    took = seconds(lambda: federated_round(sizes, device, amp=True), device)
    yield f"a round of {sizes.clients} clients of the default model: {took:.2f} s"
    own, cpu = (federated_round(sizes, place, amp=False) for place in (device, "cpu"))
    model = build_architecture(ModelConfig(), NUM_CLASSES, (64, 128))
    start = {k: v.numpy() for k, v in model.state_dict().items()}
    apart = max(float(np.abs(own[k] - cpu[k]).max()) for k in cpu)
    moved = max(float(np.abs(cpu[k] - start[k]).max()) for k in cpu)
    yield f"in float32 apart from the CPU by at most {apart / moved:.1e} of the largest change"


def setting(device: str) -> str:
    """Hardware, versions and commit."""
    what = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    call = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    commit = call.stdout.strip() or "unknown"
    return f"{what}; torch {torch.__version__}, timm {timm.__version__}; commit {commit}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--minutes", type=float, default=8, help="no model begins after (default 8)"
    )
    parser.add_argument("--dry", action="store_true", help="tiny sizes")
    options = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.dry:
        parser.error("no GPU; --dry runs tiny sizes on the CPU")
    sizes, until = DRY if options.dry else REAL, time.monotonic() + 60 * options.minutes
    print(setting(device))
    rate = matmul_rate(sizes.matrix, device)
    print(f"matrix products of bfloat16: {rate / 1e12:.3g} TFLOP/s\n")
    for line in (*rounds(sizes, device), ""):
        print(line, flush=True)
    for line in updates(sizes, device, rate, until):
        print(line, flush=True)


if __name__ == "__main__":
    main()
