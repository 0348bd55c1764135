"""What a segmentation is sent as: PNGs of labels and confidence, or polygons of each class."""

import json
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from fl_ppseg.data.classes import ClassTable
from fl_ppseg.inference.segmenter import Segmentation
from fl_ppseg.system.arrays import Pixels

AnswerKind = Literal["labels", "confidence", "both", "polygons"]
KINDS: Final[tuple[AnswerKind, ...]] = get_args(AnswerKind)
TOLERANCE: Final = 1.0
"""Furthest that a polygon's edge may be from the border of its region, in pixels."""
MAX_BORDERS: Final = 2**18
"""Neighbouring pixels of two classes in a map that becomes polygons; maps of streets of 1024 x 2048
have a third of it. What takes long would be a map of noise."""
_COMPRESSION: Final = 3
"""Of zlib: label maps get hardly smaller by more, and each step takes longer."""


class Answer(NamedTuple):
    """The body of an answer."""

    content: bytes
    media_type: str


def answer_of(found: Segmentation, kind: AnswerKind, classes: ClassTable) -> Answer:
    """A segmentation in the form that was asked for."""
    return _FORMS[kind](found, classes)


def png(pixels: Pixels) -> Answer:
    """(h, w) uint8 grey, or (h, w, 3) uint8 RGB -> a PNG without colour profile or other words."""
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=_COMPRESSION)
    return Answer(content.getvalue(), "image/png")


def percent_of_255(confidence: NDArray[np.float32]) -> Pixels:
    """(h, w) probabilities p -> (h, w) uint8, round(255 p)."""
    found: Pixels = np.rint(confidence * 255).clip(0, 255).astype(np.uint8)
    return found


def _labels(found: Segmentation, classes: ClassTable) -> Answer:
    return png(found.labels)


def _confidence(found: Segmentation, classes: ClassTable) -> Answer:
    return png(percent_of_255(found.confidence))


def _both(found: Segmentation, classes: ClassTable) -> Answer:
    nothing = np.zeros_like(found.labels)
    return png(np.stack([found.labels, percent_of_255(found.confidence), nothing], axis=-1))


def _polygons(found: Segmentation, classes: ClassTable) -> Answer:
    labels = found.labels
    height, width = labels.shape
    borders = np.count_nonzero(np.diff(labels, axis=0)) + np.count_nonzero(np.diff(labels, axis=1))
    if borders > MAX_BORDERS:
        raise HTTPException(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "what the model sees is in too many pieces for polygons; ask for labels",
        )
    document = {
        "height": height,
        "width": width,
        "classes": [
            {
                "train_id": train_id,
                "name": classes.names[train_id],
                "colour": classes.colours[train_id].tolist(),
                "rings": list(rings(labels == train_id)),
            }
            for train_id in np.unique(labels).tolist()
        ],
    }
    return Answer(json.dumps(document, separators=(",", ":")).encode(), "application/json")


def rings(mask: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    """(h, w) -> the closed outlines of its regions, and of the holes in them.

    Coordinates are [x, y] in pixels from the top left corner of the map, whose first pixel has its
    centre at [0.5, 0.5]. The even-odd rule over all rings fills the regions again, to `TOLERANCE`.
    """
    # A border of nothing closes the outlines of regions at the map's own border.
    for outline in find_contours(np.pad(mask, 1).astype(np.float64), 0.5):
        ring = approximate_polygon(outline, TOLERANCE)[:-1, ::-1] - 0.5  # (y, x) -> (x, y)
        if len(ring) < 3:  # smaller than the tolerance: as it is
            ring = outline[:-1, ::-1] - 0.5
        is_hole = _area(outline) < 0
        yield {"hole": is_hole, "points": np.clip(ring, 0, mask.shape[::-1]).round(2).tolist()}


def _area(outline: NDArray[np.float64]) -> float:
    """Signed, in pixels, of a closed (n, 2) ring (y, x); `find_contours` turns with what is low."""
    y, x = outline[:, 0], outline[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


_FORMS: Final[Mapping[AnswerKind, Callable[[Segmentation, ClassTable], Answer]]] = {
    "labels": _labels,
    "confidence": _confidence,
    "both": _both,
    "polygons": _polygons,
}
