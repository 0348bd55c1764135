"""From images to files: queries are made one by one, and answered in batches of one size."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from fl_ppseg.data.image_files import read_image
from fl_ppseg.inference.query_image import QueryImage
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.learning.evaluation import batch_size
from fl_ppseg.predict.outputs import Outputs
from fl_ppseg.query.client import Client
from fl_ppseg.system.arrays import Pixels
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


def predict(
    model: Segmenter,
    client: Client,
    images: Mapping[str, Path],
    outputs: Outputs,
    batch: int,
    progress: Progress,
) -> int:
    """Segment all images that are not done yet.

    Args:
        model: That answers.
        client: Who asks it.
        images: By name.
        outputs: Where the files go.
        batch: Most images of a batch; fewer where the images are large.
        progress: Called with (images done, images in all).

    Returns:
        How many were segmented; the others were done before.

    Raises:
        InputError: An image cannot be read; those before it are done, but for some that waited.
    """
    left = {name: path for name, path in images.items() if not outputs.is_done(name, path)}
    done = len(images) - len(left)
    progress(done, len(images))
    asked = (_ask(client, name, path) for name, path in left.items())
    for group in _groups(asked, batch, model.classes.num_classes):
        answers = client.answers([each.query for each in group])
        for each, answer in zip(group, answers, strict=True):
            outputs.write(each.name, each.image, answer)
        done += len(group)
        progress(done, len(images))
    return len(left)


def _ask(client: Client, name: str, path: Path) -> Asked:
    image = read_image(path)
    return Asked(name, image, client.query_of(image))


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
