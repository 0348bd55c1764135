"""What a local update and the scoring of a frame take in memory and time, with and without
gradient checkpointing, beside the forecast.

    python benchmarks/bench_memory.py [--steps 2] [--limit-gb 8] [--only NAME]

Each case runs in a process of its own on one core; memory is the peak of its resident set (VmHWM)
beyond what it had before the model was built, time that of the fastest step. A case whose forecast
is above the limit is not run, and none may take more address space than the limit allows.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from fl_ppseg.config.loading import validate
from fl_ppseg.config.sections import Config
from fl_ppseg.experiment.activations import ITEM_BYTES, scoring_bytes, training_bytes
from fl_ppseg.experiment.memory_forecast import COPIES
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.sizes import num_elements, tensor_shapes

NUM_CLASSES: Final = 19
ALLOWANCE: Final = 8 * 2**30
"""Address space of a process that is not memory: libraries, thread stacks, reserved arenas."""
VIT_S: Final = {"backbone": "vit_small_patch16_224"}
PUP: Final = {"decoder": "pup", "decoder_channels": 64, "num_convs": 2}
CASES: Final[dict[str, tuple[dict[str, Any], tuple[int, int], int]]] = {
    "default, 64x128, batch 8": ({}, (64, 128), 8),
    "default, 128x256, batch 8": ({}, (128, 256), 8),
    "ViT-S naive, 256x512, batch 2": (VIT_S | {"decoder": "naive"}, (256, 512), 2),
    "ViT-S PUP 64x2, 512x1024, batch 1": (VIT_S | PUP, (512, 1024), 1),
    "ViT-S PUP 64x2, 512x1024, batch 2": (VIT_S | PUP, (512, 1024), 2),
    "ViT-S MLA, 512x1024, batch 1": (VIT_S | {"decoder": "mla"}, (512, 1024), 1),
    "ViT-S PUP 256x4, 512x1024, batch 1": (VIT_S | {"decoder": "pup"}, (512, 1024), 1),
}
"""Name -> section model, image size, batch size."""


class _Shard:
    """As many zero images as the steps need."""

    num_views, num_places, is_of_round = 1, (1, 1), False

    def __init__(self, size: tuple[int, int], num_images: int) -> None:
        self._size, self._num_images = size, num_images
        manifest = type("Manifest", (), {"client": "ulm"})()
        self.parts = [type("Part", (), {"manifest": manifest})()]

    def __len__(self) -> int:
        return self._num_images

    def batch(self, indices: Sequence[int], _: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(indices), *self._size)
        return np.zeros((shape[0], 3, *shape[1:]), np.uint8), np.zeros(shape, np.uint8)


def config_of(name: str, checkpointing: bool) -> Config:
    """The config of a case."""
    model, size, batch = CASES[name]
    values = {
        "model": model | {"weights": None},
        "data": {"image_size": size},
        "training": {"batch_size": batch, "gradient_checkpointing": checkpointing},
    }
    return validate(Config, values, name)


def forecast_of(config: Config, what: str) -> int:
    """Bytes that are forecast beyond a process before it computes."""
    size = config.data.image_size
    weights = ITEM_BYTES * num_elements(tensor_shapes(config.model, NUM_CLASSES, size))
    if what == "score":
        return 2 * weights + scoring_bytes(config.model, NUM_CLASSES, size, size)
    features = training_bytes(config.model, config.training, NUM_CLASSES, size)
    return weights * COPIES[config.training.optimizer] + features


def peak() -> int:
    """Bytes of the largest resident set of this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measured(name: str, checkpointing: bool, what: str, num_steps: int) -> dict[str, float]:
    """Peak bytes beyond those before, and seconds of the fastest step or frame; in this process."""
    config = config_of(name, checkpointing)
    size, batch = config.data.image_size, config.training.batch_size
    before, times = peak(), [time.perf_counter()]
    model = build_architecture(config.model, NUM_CLASSES, size)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    if what == "score":
        model.load_state_dict(weights)
        frames = [(np.zeros((3, *size), np.uint8), np.zeros(size, np.uint8)) for _ in range(16)]
        torch.set_num_threads(1)
        start = time.perf_counter()
        evaluate(SlidingWindows(model), frames, NUM_CLASSES)
        return {"bytes": peak() - before, "seconds": (time.perf_counter() - start) / 16}
    shard: Any = _Shard(size, num_steps * batch)
    local_update(
        model, weights, {}, shard, config.training, Position(1, 2), 0,
        on_step=lambda *_: times.append(time.perf_counter()),
    )  # fmt: skip
    steps = np.diff(times)
    return {"bytes": peak() - before, "seconds": float(steps.min())}


def main() -> None:
    """Run every case in a process of its own and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--limit-gb", type=float, default=8)
    parser.add_argument("--only", default="")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, checkpointing, what = json.loads(options.one)
        print(json.dumps(measured(name, checkpointing, what, options.steps)))
        return
    limit = int(options.limit_gb * 1e9)
    space = limit + ALLOWANCE
    print(f"{'case':38}{'what':>20}{'forecast MB':>13}{'measured MB':>13}{'s':>8}")
    for name in (name for name in CASES if options.only in name):
        for what, checkpointing in (("train", False), ("train", True), ("score", False)):
            said = forecast_of(config_of(name, checkpointing), what)
            line = f"{name:38}{what + (', checkpointing' if checkpointing else ''):>20}"
            line += f"{said / 1e6:13,.0f}"
            if said > limit:
                print(f"{line}    not run: above the limit", flush=True)
                continue
            given = ["--one", json.dumps([name, checkpointing, what]), "--steps", options.steps]
            done = subprocess.run(
                [sys.executable, __file__, *map(str, given)],
                capture_output=True,
                text=True,
                check=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space)),
            )
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{line}{found['bytes'] / 1e6:13,.0f}{found['seconds']:8.2f}", flush=True)


if __name__ == "__main__":
    main()
