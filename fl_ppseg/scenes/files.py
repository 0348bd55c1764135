"""One scene on disk: photograph and label map under Cityscapes' names, written by any process."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene
from fl_ppseg.system.spans import span

PHOTOS, LABELS = "leftImg8bit", "gtFine"


@dataclass(frozen=True)
class SceneFiles:
    """Scene number `index` of a city, and where it belongs; cheap to send to a worker."""

    root: Path
    split: str
    city: str
    index: int
    seed: int
    size: tuple[int, int]

    @property
    def photo(self) -> Path:
        """`leftImg8bit/<split>/<city>/<city>_<index>_000019_leftImg8bit.png`."""
        return self._path(PHOTOS, "leftImg8bit")

    @property
    def labels(self) -> Path:
        """`gtFine/<split>/<city>/<city>_<index>_000019_gtFine_labelIds.png`."""
        return self._path(LABELS, "gtFine_labelIds")

    def _path(self, folder: str, kind: str) -> Path:
        name = f"{self.city}_{self.index:06d}_000019_{kind}.png"
        return self.root / folder / self.split / self.city / name

    def make_folders(self) -> None:
        """Make the folders of both files; `write` makes none, so a removed tree stays removed."""
        for path in (self.photo, self.labels):
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self) -> None:
        """Draw the scene and save both pictures."""
        photo, labels = render_scene(city_style(self.city), self.seed, self.index, self.size)
        _save(photo, self.photo)
        _save(labels, self.labels)


def write_scenes(scenes: list[SceneFiles]) -> int:
    """Write scenes one after the other; returns their number (a worker's task)."""
    with span("data"):
        for scene in scenes:
            scene.write()
    return len(scenes)


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    """Save a PNG by run-length coding, which for noise is faster and smaller than LZ77."""
    Image.fromarray(picture).save(path, compress_level=1, compress_type=zlib.Z_RLE)
