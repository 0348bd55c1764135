"""What is written of an image, and the record of what wrote it.

labelIds/<name>_pred_labelIds.png          (h, w) 8-bit labelIds, as Cityscapes' evaluation reads
confidence/<folder>/confidence_<name>.png  (h, w) 8 bits: 255 times the probability of the class
overlays/<folder>/overlay_<name>.png       the colours of the classes over the image
predictions.json                           the model, and how it was asked

cityscapesScripts looks for `<city>_<sequence>_<frame>*.png` in all folders of its results, and
wants one: the names of the others begin otherwise.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from PIL import Image
from pydantic import Field

from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.data.manifest import Sha256
from fl_ppseg.inference.overlays import coloured
from fl_ppseg.inference.segmenter import Segmentation, Segmenter
from fl_ppseg.system.arrays import Pixels
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable, write_atomically

LABELS: Final = "labelIds"
CONFIDENCE: Final = "confidence"
OVERLAYS: Final = "overlays"
RECORD: Final = "predictions.json"
OPACITY: Final = 0.5
"""Of the colours of classes in overlays."""
SCHEMA: Final = 1
MAX_BYTES: Final = 2**26
MOST: Final = 200_000
"""Paths that `--images` may name: some more than a command line holds."""
MAX_NAME_BYTES: Final = 255
"""Of a file, on the usual file systems."""


class Record(Section):
    """What made the files of a folder: others are not mixed with them."""

    schema_: Annotated[int, Field(alias="schema")] = SCHEMA
    """Version of this form."""
    model: Sha256
    """Digest of the model's weights, classes and queries."""
    name: Annotated[str, Field(max_length=200)]
    """What the model is called."""
    key: Annotated[str, Field(max_length=5_000)]
    """Whose key encrypted the images, in words."""
    images: Annotated[tuple[Annotated[str, Field(max_length=4_096)], ...], Field(max_length=MOST)]
    """What `--images` named, as absolute paths."""


class Outputs:
    """The files of a folder of predictions.

    Args:
        folder: Of all of them.
        model: That makes them.
        kinds: Those that are written beside the label maps: `CONFIDENCE`, `OVERLAYS`.
    """

    def __init__(self, folder: Path, model: Segmenter, kinds: Sequence[str]) -> None:
        self.folder, self._classes = folder, model.classes
        self._kinds = (*kinds, LABELS)  # the label map last: with it an image is finished

    def open(self, record: Record) -> None:
        """Make the folder, or go on in one that the same model made of the same images.

        Raises:
            InputError: It holds something else, or nothing can be written there.
        """
        path = self.folder / RECORD
        if path.exists():
            values = parse_json(read_bytes(path, MAX_BYTES, follow_link=False), str(path))
            if validate(Record, values, str(path)) == record:
                check_writable(self.folder)
                return
            if any(each != path for each in self.folder.iterdir()):
                raise InputError(
                    f"{self.folder}: holds predictions of another model, or of other images or "
                    "settings; choose another --out, or remove it"
                )
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(
                f"{self.folder}: exists and holds no predictions; choose another --out"
            )
        check_writable(self.folder)
        write_atomically(path, record.model_dump_json(by_alias=True, indent=1) + "\n")

    def path(self, kind: str, name: str) -> Path:
        """The file of a kind for an image of some name."""
        folder, _, stem = name.rpartition("/")
        file = f"{stem}_pred_labelIds.png" if kind == LABELS else f"{kind.rstrip('s')}_{stem}.png"
        return self.folder / kind / folder / file

    def check_name(self, name: str, image: Path) -> None:
        """Check that the files of an image can be named after it.

        Raises:
            InputError: Its name is too long for that.
        """
        for kind in self._kinds:
            length = len(os.fsencode(self.path(kind, name).name))
            if length > MAX_NAME_BYTES:
                raise InputError(
                    f"{image}: a file named after it would have a name of {length} bytes, at most "
                    f"{MAX_NAME_BYTES}; rename it"
                )

    def is_done(self, name: str, image: Path) -> bool:
        """Whether all files of an image are there, made after it was last changed."""
        try:
            changed = image.stat().st_mtime_ns
            made = [self.path(kind, name).stat().st_mtime_ns for kind in self._kinds]
        except OSError:
            return False
        return min(made) >= changed

    def write(self, name: str, image: Pixels, found: Segmentation) -> None:
        """Write the files of an image, each whole or not at all.

        Args:
            name: Of the image.
            image: (3, h, w) uint8.
            found: Its segmentation.
        """
        for kind in self._kinds:
            picture = self._picture(kind, image, found)
            write_atomically(self.path(kind, name), _png(picture), lasting=False)

    def _picture(self, kind: str, image: Pixels, found: Segmentation) -> Image.Image:
        if kind == LABELS:
            return Image.fromarray(self._classes.train_to_label[found.labels])
        if kind == CONFIDENCE:
            return Image.fromarray(np.rint(255 * found.confidence).astype(np.uint8))
        return Image.fromarray(coloured(image, found.labels, self._classes, OPACITY))


def digest_of(model: Segmenter) -> str:
    """SHA-256 of all that decides what a model answers."""
    found = hashlib.sha256()
    about = [model.spec.model_dump(mode="json"), model.classes.names]
    found.update(json.dumps([*about, model.classes.label_to_train.tolist()]).encode())
    for name, tensor in sorted(model.network.state_dict().items()):
        array = np.ascontiguousarray(tensor.cpu().numpy())
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
