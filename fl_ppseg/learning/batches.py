"""The batches of a local update: which view of which image in which step, and reading them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.classes import IGNORE_INDEX
from fl_ppseg.data.shard import Shard
from fl_ppseg.data.windows import ONE_PLACE, Places, draw_places
from fl_ppseg.system.spans import span

T = TypeVar("T")


def order_of(
    generator: np.random.Generator, num_images: int, num_views: int
) -> tuple[list[int], list[int]]:
    """An epoch's order of the images, and the view of each."""
    order: list[int] = generator.permutation(num_images).tolist()
    views: list[int] = generator.integers(num_views, size=num_images).tolist()
    return order, views


class Step(NamedTuple):
    """What one step trains on."""

    images: list[int]
    """Indices of the images."""
    views: list[int]
    """View of each."""
    places: Places | None = None
    """(B, tries, 2), where windows of frames may begin; None: whole views."""


def steps_of(shard: Shard, config: TrainingConfig, generator: np.random.Generator) -> list[Step]:
    """The steps of a local update: per epoch each image at most once, with one view.

    Which one is drawn; of fresh views each epoch has its own.
    """
    steps, seen = [], config.images_a_pass(len(shard))
    number = shard.num_places
    for epoch in range(config.local_epochs):
        order, views = order_of(generator, len(shard), shard.num_views)
        if shard.is_of_round:
            views = [epoch] * len(order)
        places = None if number == ONE_PLACE else draw_places(generator, seen, number)
        for start in range(0, seen, config.batch_size):
            part = slice(start, min(start + config.batch_size, seen))
            own = None if places is None else places[part]
            steps.append(Step(order[part], views[part], own))
    return steps


def batches(
    shard: Shard, steps: Sequence[Step], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Images and label maps of each step on the device, and whether any pixel is labelled.

    For a GPU they are read one step ahead into pinned memory, so that the copy is queued without
    waiting for the step before.
    """
    is_cuda = device.type == "cuda"

    def read(step: Step) -> tuple[Tensor, Tensor, bool]:
        with span("data"):
            if step.places is None:
                images, labels = shard.batch(step.images, step.views)
            else:
                images, labels = shard.windows(step.images, step.views, step.places)
        tensors = torch.from_numpy(images), torch.from_numpy(labels)
        if is_cuda:
            tensors = tensors[0].pin_memory(), tensors[1].pin_memory()
        return *tensors, bool((labels != IGNORE_INDEX).any())

    for images, labels, is_labelled in (
        _one_ahead(map(read, steps)) if is_cuda else map(read, steps)
    ):
        yield (
            images.to(device, non_blocking=is_cuda),
            labels.to(device, non_blocking=is_cuda),
            is_labelled,
        )


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each made in a thread while the one before is used."""
    end = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield cast(T, item)
