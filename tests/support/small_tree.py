"""A tree in Cityscapes layout, of a scene a city."""

from pathlib import Path

import numpy as np
from PIL import Image

from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import Scene, open_dataset

CLASSES = load_class_table("cityscapes")
HEIGHT, WIDTH = 12, 20


def pixels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A gradient with another slope in each channel, (H, W, 3)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 9, columns * 7, rows + columns], axis=-1).astype(np.uint8)


def label_ids(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return (np.arange(height * width) % 34).reshape(height, width).astype(np.uint8)


def image_path(root: Path, city: str, split: str = "train", kind: str = "png") -> Path:
    return root / "leftImg8bit" / split / city / f"{city}_000000_000019_leftImg8bit.{kind}"


def label_path(root: Path, city: str, split: str = "train") -> Path:
    return root / "gtFine" / split / city / f"{city}_000000_000019_gtFine_labelIds.png"


def add_scene(root: Path, city: str, split: str = "train", kind: str = "png") -> None:
    for path, array in (
        (image_path(root, city, split, kind), pixels()),
        (label_path(root, city, split), label_ids()),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def only_scene(root: Path, city: str = "aachen") -> Scene:
    (scene,) = open_dataset(root, CLASSES).split("train")[city]
    return scene


def as_jpeg(path: Path) -> None:
    Image.fromarray(pixels()).save(path.with_suffix(".jpg"), quality=95)
    path.unlink()


def small_tree(root: Path) -> Path:
    """Two cities to train on, one to evaluate on."""
    add_scene(root, "bochum")
    add_scene(root, "aachen")
    add_scene(root, "lindau", split="val")
    return root
