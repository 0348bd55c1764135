"""The page's sample scenes are this project's own drawings, and can be drawn again."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene
from fl_ppseg.service.page_files import page_files

SEED = 20260417
SIZE = (256, 512)
SCENES = {
    "avenue": ("public-26", 0),
    "crossing": ("public-26", 2),
    "evening": ("public-25", 4),
    "summer": ("public-25", 1),
}
"""Name of the file -> city of the public world, index of the scene."""


@pytest.mark.parametrize("name", SCENES)
def test_a_sample_is_a_scene_of_the_public_world(name: str) -> None:
    city, index = SCENES[name]
    drawn, _ = render_scene(city_style(city), SEED, index, SIZE)
    file = page_files()[f"scenes/{name}.png"].content
    with Image.open(BytesIO(file)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), drawn)


def test_every_picture_of_the_page_is_such_a_scene() -> None:
    assert {name for name in page_files() if name.endswith(".png")} == {
        f"scenes/{name}.png" for name in SCENES
    }
