"""Section `data`: which images, at what size, in how many views."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fl_ppseg.config.bounds import Count, ImageSize, Seed, Text, up_to
from fl_ppseg.config.section import Section


class DataConfig(Section):
    """Which images, at what size, in how many augmented views."""

    root: Path | None = None
    """A tree in Cityscapes layout; none: procedural street scenes, made once and cached."""
    classes: Text = "cityscapes"
    """Name of a built-in class table or path of a YAML file; num_classes follows from it."""
    image_size: ImageSize = (64, 128)
    """Height and width of what is encrypted and of the model's input, in pixels."""
    fit: Literal["resize", "crop"] = "resize"
    """How an image of another size is brought to image_size."""
    show_val_scene: bool = True
    """Of one's own data: keep the middle image of each val client of three or more out of the
    scores, to show it in the report; false: all are scored, none is shown."""
    num_views: Annotated[int, up_to(1_000)] = 4
    """Augmented copies per image that the vault encrypts ahead; the first is the image itself."""
    scene_size: ImageSize = (128, 256)
    """Height and width of the procedural scenes and their label maps, in pixels."""
    num_train: Count = 600
    """Procedural training scenes, shared out in proportion to the true city sizes."""
    num_val: Count = 60
    """Procedural scenes of the val cities."""
    num_val_cities: Annotated[int, Field(ge=1, le=3)] = 3
    """Procedural val cities: the first ones of Cityscapes' three."""
    scene_seed: Seed = 0
    """Seed of the procedural scenes."""
