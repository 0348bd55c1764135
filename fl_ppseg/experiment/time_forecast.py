"""Forecast of the time that a run will take: timed steps of the real models, times their number.

One step and one forward pass of each different model are timed on this machine, on images of noise.
What it leaves out: drawing and encrypting images, starting the engine, packing messages, and that
processes beside each other slow each other down. Of one thread on the CPU the time is that which it
computed, so that other work of the machine does not count. It is an estimate, and says so.
"""

import math
import time
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.classes import ClassTable
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.manifest import Manifest
from fl_ppseg.data.shard import Shard, ShardPart
from fl_ppseg.data.views import scored_size
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.learning.sliding import SlidingWindows
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.build import build_architecture

QUICK: Final = 0.5
"""Seconds of a step of one view below which a whole batch is timed too; above, it is multiplied."""
HELD_OUT: Final = 0.1
"""Share of a client's images that are scored and not trained on."""


class Images(NamedTuple):
    """How many images a run has, and how large they are scored."""

    num_train: int
    """Of the training clients, held-out ones among them."""
    num_val: int
    scored: tuple[int, int]
    """(height, width) of a scored image, in pixels."""


@dataclass(frozen=True)
class Seconds:
    """What one model takes on this machine."""

    step: float
    """A step of training, of a whole batch."""
    image: float
    """Scoring an image, all of its windows."""


def images_of(config: Config, classes: ClassTable, block_size: int) -> Images:
    """The images of a run: those that will be drawn, or those of the user's tree.

    Args:
        config: The experiment.
        classes: Its class table.
        block_size: Side of a block, in pixels.

    Raises:
        InputError: The tree cannot be read.
    """
    data, size = config.data, config.data.scene_size
    num_train, num_val = data.num_train, data.num_val
    if data.root is not None:
        splits = open_dataset(data.root, classes, required=("train", "val"))
        train, val = (
            [scene for city in splits.split(name).values() for scene in city]
            for name in ("train", "val")
        )
        num_train, num_val, size = len(train), len(val), val[0].size()
    return Images(num_train, num_val, scored_size(size, data.image_size, data.fit, block_size))


def seconds_of(config: Config, images: Images, num_processes: int, num_classes: int) -> float:
    """Seconds that training and scoring take on this machine, roughly.

    Args:
        config: The experiment.
        images: Of `images_of`.
        num_processes: Client processes at the same time.
        num_classes: Channels of the scores.
    """
    timed: dict[ModelConfig, Seconds] = {}
    total = 0.0
    for name, arm in arms_of(config).items():
        model = model_settings(config.model, name, arm)
        if model not in timed:
            timed[model] = _timed(config, model, images, num_classes)
        total += _of_arm(config, arm, images, timed[model])
    return total * len(config.seeds) / num_processes


def _of_arm(config: Config, arm: ArmConfig, images: Images, one: Seconds) -> float:
    """Seconds of an arm and seed in one process."""
    federation, training = config.federation, config.training
    heldout = max(1, round(HELD_OUT * images.num_train / config.clients)) * config.clients
    each = max(1, (images.num_train - heldout) // config.clients)
    steps = training.local_epochs * training.steps_a_pass(each)
    asked = federation.num_asked(config.clients)
    num_models = config.clients if arm.training == "local-only" else 1
    scored = heldout + images.num_val * num_models
    rounds = federation.num_rounds
    return rounds * asked * steps * one.step + (rounds + 1) * scored * one.image


def _timed(config: Config, model: ModelConfig, images: Images, num_classes: int) -> Seconds:
    """Time a step of training and the scoring of an image."""
    size, training = config.data.image_size, config.training
    is_alone = config.device == "cpu" and training.num_threads == 1
    clock = time.thread_time if is_alone else time.perf_counter
    network = build_architecture(model, num_classes, size)
    weights = {name: value.clone() for name, value in network.state_dict().items()}

    def step(batch: int) -> float:
        settings = training.model_copy(
            update={"batch_size": batch, "local_epochs": 1, "pass_fraction": 1.0}
        )
        times: list[float] = []
        local_update(
            network,
            weights,
            {},
            _noise(size, 2 * batch, num_classes),
            settings,
            Position(1, 1),
            0,
            device=config.device,
            on_step=lambda *_: times.append(clock()),
        )
        return times[1] - times[0]  # the first step warms up

    batch = training.batch_size
    seconds = step(1)
    seconds = step(batch) if seconds < QUICK and batch > 1 else seconds * batch
    network.to(config.device)
    frame = cast(Any, np.zeros((3, *images.scored), np.uint8))
    if config.data.fit == "resize":
        frame = np.zeros((3, *size), np.uint8)
    labels = np.zeros(images.scored, np.uint8)
    frames = SlidingWindows(network)
    threads = torch.get_num_threads()
    torch.set_num_threads(training.num_threads)
    try:
        start = clock()
        evaluate(frames, [(frame, labels)], num_classes, config.device)
        return Seconds(seconds, clock() - start)
    finally:
        torch.set_num_threads(threads)


def _noise(size: tuple[int, int], num_images: int, num_classes: int) -> Shard:
    """Images of noise, as a shard."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 1, 3, *size), np.uint8)
    labels = rng.integers(0, num_classes, (num_images, 1, *size), np.uint8)
    nothing = np.zeros(0, np.uint8)
    manifest = Manifest(4, "noise", "", math.gcd(*size), num_images, 1, [])
    return Shard([ShardPart(manifest, images, labels, nothing, nothing)])
