"""Section `data`: which images, at what size, in how many views."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fl_ppseg.config.bounds import Count, ImageSize, Seed, Text, up_to
from fl_ppseg.config.section import Section


class DataConfig(Section):
    """Which images, at what size, in how many augmented views."""

    root: Path | None = None
    """A tree in Cityscapes layout; none: procedural street scenes, made once and cached."""
    classes: Text = "cityscapes"
    """Name of a built-in class table or path of a YAML file; num_classes follows from it."""
    image_size: ImageSize = (64, 128)
    """Height and width of the model's input and, without frame_size, of what is encrypted, in
    pixels."""
    frame_size: ImageSize | None = None
    """Height and width of the frames that are encrypted for training, with fit crop: each step cuts
    a window of image_size from the ciphertext; none: views of image_size are encrypted."""
    fit: Literal["resize", "crop"] = "resize"
    """How an image of another size is brought to image_size."""
    show_val_scene: bool = True
    """Of one's own data: keep the middle image of each val client of three or more out of the
    scores, to show it in the report; false: all are scored, none is shown."""
    num_views: Annotated[int, up_to(1_000)] = 4
    """Augmented copies per image that the vault encrypts ahead; the first is the image itself."""
    fresh_views: bool = False
    """Each round trains on views of its own, which the vaults make while the round before trains:
    local_epochs of each image, about one of four the image itself and the others augmented;
    num_views is not read; only two rounds' views lie on disk. A node
    that keeps them all can line them up: many show far more of an image than one."""
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

    @property
    def view_size(self) -> tuple[int, int]:
        """Height and width of an encrypted training view, in pixels."""
        return self.frame_size or self.image_size

    @property
    def sizes_text(self) -> str:
        """Sizes of what is encrypted and trained on, and how images are brought to them."""
        if self.frame_size is None:
            return f"{_text(self.image_size)} pixels ({self.fit})"
        window = _text(self.image_size)
        return f"{_text(self.frame_size)} pixels ({self.fit}; a step sees windows of {window})"

    @model_validator(mode="after")
    def _windows_fit_frames(self) -> Self:
        if self.frame_size is None:
            return self
        if self.fit != "crop":
            raise ValueError(
                "frame_size is of images that are not scaled to the model's input: set fit to "
                "crop, or leave it out"
            )
        if any(map(int.__lt__, self.frame_size, self.image_size)):
            raise ValueError(
                f"expected a frame_size of image_size {_text(self.image_size)} or more, got "
                f"{_text(self.frame_size)}"
            )
        return self


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
