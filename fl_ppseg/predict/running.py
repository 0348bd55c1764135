"""From images to files: queries are made one by one, and answered in batches of one size."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.data.image_files import read_image
from fl_ppseg.inference.query_image import QueryImage
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.learning.evaluation import batch_size
from fl_ppseg.predict.outputs import Outputs
from fl_ppseg.query.client import Client
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError, describe
from fl_ppseg.system.files import Progress

WAITING: Final = 4
"""Batches' worth of queries that wait for others of their size, whatever the number of images."""


class Asked(NamedTuple):
    """A query, and the image that it was made of."""

    name: str
    image: Pixels
    """(3, h, w) uint8."""
    query: QueryImage

    @property
    def sizes(self) -> tuple[object, ...]:
        """What those of a batch have in common."""
        return self.query.pixels.shape, self.query.size


class Outcome(NamedTuple):
    """How many images a call segmented, and how many it could not."""

    segmented: int
    unusable: int


Say = Callable[[str], None]
"""Called with a line for whoever called the command."""


def predict(
    model: Segmenter,
    client: Client,
    images: Mapping[str, Path],
    outputs: Outputs,
    batch: int,
    progress: Progress,
    say: Say,
) -> Outcome:
    """Segment all images that are not done yet; those that cannot be read are named and left out.

    Args:
        model: That answers.
        client: Who asks it.
        images: By name.
        outputs: Where the files go.
        batch: Most images of a batch; fewer where the images are large.
        progress: Called with (images done, images in all).
        say: Called with a line for each image that cannot be segmented, soon after it was tried.

    Returns:
        How many were segmented, and how many could not be; the others were done before.

    Raises:
        InputError: No image at all can be segmented, nor was one before; none is named.
    """
    left = {name: path for name, path in images.items() if not outputs.is_done(name, path)}
    before = done = len(images) - len(left)
    unusable: list[str] = []
    num_named = 0
    progress(done, len(images))
    asked = _asked(client, left, outputs, unusable.append)
    for group in _groups(asked, batch, model.classes.num_classes):
        answers = client.answers([each.query for each in group])
        for each, answer in zip(group, answers, strict=True):
            outputs.write(each.name, each.image, answer)
        done += len(group)
        num_named += _say_all(unusable, say)
        progress(done + num_named, len(images))
    if done == 0:
        raise _none_usable(unusable)
    num_named += _say_all(unusable, say)
    progress(done + num_named, len(images))
    return Outcome(done - before, num_named)


def _asked(
    client: Client, images: Mapping[str, Path], outputs: Outputs, say: Say
) -> Iterator[Asked]:
    """Queries of images, one by one; what is wrong with those that cannot be read is said."""
    for name, path in images.items():
        try:
            outputs.check_name(name, path)
            image = read_image(path)
            query = client.query_of(image)
        except InputError as error:
            line = describe(error)
            say(line if line.startswith(f"{path}: ") else f"{path}: {line}")
        else:
            yield Asked(name, image, query)


def _say_all(lines: list[str], say: Say) -> int:
    """Say the lines that wait; returns how many."""
    number = len(lines)
    for line in lines:
        say(f"not segmented: {line}")
    lines.clear()
    return number


def _none_usable(lines: list[str]) -> InputError:
    if len(lines) == 1:
        return InputError(lines[0])
    return InputError(f"none of {len(lines)} images can be segmented; the first: {lines[0]}")


def _groups(asked: Iterator[Asked], batch: int, num_classes: int) -> Iterator[list[Asked]]:
    """Queries of equal sizes, as many as a batch has; the oldest go first where too many wait."""
    waiting: dict[tuple[object, ...], list[Asked]] = {}
    for each in asked:
        group = waiting.setdefault(each.sizes, [])
        group.append(each)
        if len(group) >= min(batch, batch_size(num_classes, each.query.answer_size)):
            yield waiting.pop(each.sizes)
        elif sum(map(len, waiting.values())) >= WAITING * batch:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()
