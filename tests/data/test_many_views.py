"""The benchmark of many views puts each where it lies, and restores an image from blocks alone."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fl_ppseg.data import views
from fl_ppseg.data.dataset import Scene

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "many_views.py"


@pytest.fixture(scope="module")
def many() -> dict[str, Any]:
    return runpy.run_path(str(BENCHMARK))


@pytest.mark.parametrize("first", [0, 1])
def test_views_lie_where_the_vault_cuts_them(
    many: dict[str, Any], images: tuple[Scene, ...], first: int
) -> None:
    scene = images[0]
    image, labels = scene.load()
    made = views.views(image, labels, many["SIZE"], "resize", 12, 0, scene.scene_id, first)
    for number, (_, expected) in enumerate(made, first):
        window, is_flipped = many["lying"](scene, labels, number, first > 0)
        cut = np.asarray(views._cut_labels(Image.fromarray(labels), window))
        np.testing.assert_array_equal(cut[:, ::-1] if is_flipped else cut, expected)


def test_views_that_are_lined_up_restore_more_than_one(
    many: dict[str, Any], images: tuple[Scene, ...]
) -> None:
    scene = images[0]
    image, labels = views.fit(*scene.load(), many["SIZE"], "resize")
    truth = image[0].astype(np.float32)

    def error(numbers: range) -> float:
        ways = [many["lying"](scene, labels, number) for number in numbers]
        return float(np.abs(many["restored"](truth, ways) - truth).mean())

    assert error(range(1, 25)) < 0.8 * error(range(4)) < 0.8 * error(range(1))
