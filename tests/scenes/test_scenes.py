"""Laws of procedural scenes: sizes of cities, a camera's geometry, what a street looks like."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_ppseg.scenes.camera import Camera
from fl_ppseg.scenes.cities import TRAIN_CITIES, VAL_CITIES, city_style, split_sizes
from fl_ppseg.scenes.labels import Label
from fl_ppseg.scenes.mesh import Sketch, rectangle
from fl_ppseg.scenes.noise import COARSE, field
from fl_ppseg.scenes.render import render_scene
from fl_ppseg.scenes.worlds import CLIMATES, CREATOR, PUBLIC, SEASONS, STREETS, WEATHERS
from fl_ppseg.system.errors import InputError

SIZE = (64, 128)
TRAIN_IDS = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}
"""labelIds of the 19 classes, from cityscapesScripts' table."""


def labels_of(city: str, number: int) -> NDArray[np.uint8]:
    style = city_style(city)
    return np.stack([render_scene(style, 0, index, SIZE)[1] for index in range(number)])


def test_label_ids_are_those_of_cityscapes() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    for label in Label:
        assert labels.id2label[int(label)].name == label.name.lower().replace("_", " ")


def test_city_counts_are_the_published_totals() -> None:
    assert (len(TRAIN_CITIES), sum(TRAIN_CITIES.values())) == (18, 2975)
    assert (len(VAL_CITIES), sum(VAL_CITIES.values())) == (3, 500)


@given(
    counts=st.dictionaries(st.text("abc", min_size=1), st.integers(1, 400), min_size=1),
    spare=st.integers(0, 500),
)
@settings(max_examples=30)
def test_split_keeps_the_total_the_minimum_and_the_order(
    counts: dict[str, int], spare: int
) -> None:
    total = 2 * len(counts) + spare
    sizes = split_sizes(total, counts)
    assert sum(sizes.values()) == total
    assert min(sizes.values()) >= 2
    for small, large in combinations(sorted(counts, key=counts.__getitem__), 2):
        assert sizes[small] <= sizes[large] + 1


def test_split_of_the_true_total_gives_the_true_counts() -> None:
    assert split_sizes(2975, TRAIN_CITIES) == TRAIN_CITIES


def test_split_stays_within_one_of_the_exact_share() -> None:
    sizes = split_sizes(600, TRAIN_CITIES)
    for city, count in TRAIN_CITIES.items():
        assert abs(sizes[city] - 600 * count / 2975) < 1


def test_split_of_too_few_scenes_is_refused() -> None:
    with pytest.raises(InputError, match="at least 36"):
        split_sizes(35, TRAIN_CITIES)


@pytest.mark.parametrize("name", ["", "Aachen", "../x", "a/b", "a b", "-a"])
def test_bad_city_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="city name"):
        city_style(name)


def test_any_other_city_has_a_style() -> None:
    photo, labels = render_scene(city_style("public-01"), 3, 0, SIZE)
    assert photo.shape == (*SIZE, 3)
    assert labels.shape == SIZE


@given(x=st.floats(-20, 20), y=st.floats(0, 15), z=st.floats(3, 100), focal=st.floats(1, 3))
@settings(max_examples=30)
def test_straight_camera_is_a_pinhole(x: float, y: float, z: float, focal: float) -> None:
    camera = Camera((100, 200), height=1.5, focal=focal, horizon=0.4, yaw=0.0, bend=0.0)
    across, down = camera.project(np.array([x, y, z], np.float32))
    assert across == pytest.approx(100 + 100 * focal * x / z, rel=1e-4, abs=1e-2)
    assert down == pytest.approx(40 + 100 * focal * (1.5 - y) / z, rel=1e-4, abs=1e-2)


def test_ground_is_the_inverse_of_the_projection() -> None:
    camera = Camera((64, 128), height=1.6, focal=1.7, horizon=0.43, yaw=0.02, bend=0.0008)
    first, u, z = camera.ground()
    points = np.stack((u, np.zeros_like(u), np.broadcast_to(z, u.shape)), axis=-1)
    pixels = camera.project(points.astype(np.float32))
    rows, columns = np.mgrid[first:64, 0:128] + 0.5
    near = np.broadcast_to(z, u.shape) < 200
    np.testing.assert_allclose(pixels[..., 0][near], columns[near], atol=0.01)
    np.testing.assert_allclose(pixels[..., 1][near], rows[near], atol=0.01)


def test_solids_look_outwards() -> None:
    sketch = Sketch((0.0, 1.0, 0.0))
    for z in (-1.0, 1.0):
        sketch.solid(np.insert(rectangle(0, 0, 2, 2), 2, z, axis=1), 0)
    np.testing.assert_allclose(sketch.build().normals, [(0, 0, -1), (0, 0, 1)], atol=1e-6)


def test_noise_is_normal_and_joins_at_its_edges() -> None:
    noise = field((128, 256), COARSE)
    assert noise.mean() == pytest.approx(0, abs=1e-3)
    assert noise.std() == pytest.approx(1, abs=1e-3)
    inside = np.abs(np.diff(noise, axis=1)).mean()
    assert np.abs(noise[:, 0] - noise[:, -1]).mean() < 2 * inside


def test_the_same_scene_twice_and_another_by_seed_city_or_index() -> None:
    style = city_style("ulm")
    scene = render_scene(style, 1, 2, SIZE)
    for again, other in zip(scene, render_scene(style, 1, 2, SIZE), strict=True):
        np.testing.assert_array_equal(again, other)
    for changed in (
        render_scene(style, 2, 2, SIZE),
        render_scene(style, 1, 3, SIZE),
        render_scene(city_style("jena"), 1, 2, SIZE),
    ):
        assert (changed[1] != scene[1]).mean() > 0.05


def test_a_scene_does_not_depend_on_what_was_drawn_before() -> None:
    """A fresh process, which has cached nothing, draws the same picture."""
    code = (
        "import hashlib, sys; from fl_ppseg.scenes.cities import city_style;"
        "from fl_ppseg.scenes.render import render_scene;"
        "photo, labels = render_scene(city_style('bremen'), 5, 7, (64, 128));"
        "print(hashlib.sha256(photo.tobytes() + labels.tobytes()).hexdigest());"
        "print('torch' in sys.modules)"
    )
    photo, labels = render_scene(city_style("bremen"), 5, 7, SIZE)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    digest = hashlib.sha256(photo.tobytes() + labels.tobytes()).hexdigest()
    assert out.stdout.split() == [digest, "False"]


@pytest.mark.parametrize("city", [*TRAIN_CITIES, *VAL_CITIES])
def test_six_scenes_of_any_city_show_all_classes_and_void(city: str) -> None:
    present = set(np.unique(labels_of(city, 6)).tolist())
    assert present >= TRAIN_IDS
    assert present <= {int(label) for label in Label}
    assert present & {0, 1, 2, 3, 4, 5, 6}


def test_the_composition_does_not_depend_on_the_size() -> None:
    style = city_style("weimar")
    small_photo, small = render_scene(style, 0, 1, (128, 256))
    large_photo, large = render_scene(style, 0, 1, (256, 512))
    assert (large[::2, ::2] == small).mean() > 0.93
    blocks = large_photo.reshape(16, 16, 32, 16, 3).mean((1, 3))
    thumbnail = small_photo.reshape(16, 8, 32, 8, 3).mean((1, 3))
    assert np.corrcoef(blocks.ravel(), thumbnail.ravel())[0, 1] > 0.95


def test_what_the_creator_has_seen_is_a_part_of_what_there_is() -> None:
    """Fewer kinds of weather, season and facade; one answer to light and one white balance."""
    for trait in ("weathers", "seasons", "facades"):
        assert set(getattr(PUBLIC, trait)) < set(getattr(STREETS, trait)), trait
    for trait in ("gamma", "warmth", "veil"):
        seen, there = getattr(PUBLIC, trait), getattr(STREETS, trait)
        assert seen[0] == seen[1]
        assert there[0] < there[1]


def test_public_cities_look_like_one_another_and_the_owners_do_not() -> None:
    styles = [city_style(f"{CREATOR}{k:02d}") for k in range(1, 28)]
    streets = [city_style(city) for city in (*TRAIN_CITIES, *VAL_CITIES)]
    for group, world in ((styles, PUBLIC), (streets, STREETS)):
        assert {style.weathers for style in group} == {world.weathers}
        assert {style.weather for style in group} == set(world.weathers)
    assert len({(s.gamma, s.warmth, s.veil) for s in styles}) == 1
    assert np.std([s.gamma for s in streets]) > 0.2
    assert np.std([s.warmth for s in streets]) > 0.05


def test_climates_are_dealt_out_to_all_cities_and_those_of_val_are_their_own() -> None:
    assert CLIMATES.keys() == TRAIN_CITIES.keys() | VAL_CITIES.keys()
    trained = [CLIMATES[city] for city in TRAIN_CITIES]
    assert {season for season, _ in trained} == set(SEASONS)
    assert {weather for _, weather in trained} == set(WEATHERS)
    for city in VAL_CITIES:
        assert CLIMATES[city] not in trained
        assert city_style(city).weather == CLIMATES[city][1]


@pytest.mark.parametrize(
    ("number", "colour", "pixels"),
    [
        (1, (100.1, 104.7, 97.5), (1359, 1355, 1025, 868)),
        (7, (94.5, 97.8, 95.8), (1801, 994, 975, 1064)),
        (25, (116.9, 101.1, 78.8), (2766, 1230, 789, 828)),
    ],
)
def test_public_scenes_are_those_that_the_shipped_weights_were_made_of(
    number: int, colour: tuple[float, ...], pixels: tuple[int, ...]
) -> None:
    """As generator 1 drew them: mean colour, and pixels of road, building, vegetation and sky."""
    photo, labels = render_scene(city_style(f"{CREATOR}{number:02d}"), 20260416, 1, SIZE)
    np.testing.assert_allclose(photo.mean((0, 1)), colour, atol=0.2)
    shown = (Label.ROAD, Label.BUILDING, Label.VEGETATION, Label.SKY)
    np.testing.assert_allclose([(labels == label).sum() for label in shown], pixels, atol=8)


def test_a_camera_of_its_own_keeps_the_order_of_what_it_sees() -> None:
    """Stray light and response change every value and exchange none."""
    plain = replace(city_style("ulm"), noise=0.0, gamma=1.0, veil=0.0)
    seen, labels = render_scene(plain, 0, 1, SIZE)
    shown = render_scene(replace(plain, gamma=2.0, veil=0.4), 0, 1, SIZE)[0]
    inside = labels != Label.EGO_VEHICLE
    expected = 0.4 * 255 + 0.6 * 255 * (seen[inside] / 255.0) ** 2
    assert np.abs(shown[inside] - expected).max() <= 2.0
    assert shown[inside].min() >= 101


def test_headlamps_light_what_is_near_at_night() -> None:
    """The nearest quarter of the road against the farthest: by night brighter than by day."""
    near_to_far = {}
    for name in ("night", "overcast"):
        style = replace(city_style("jena"), weather=name, weathers=(name,), asphalt=(108, 108, 112))
        near, far = [], []
        for index in range(4):
            photo, labels = render_scene(style, 0, index, SIZE)
            rows, columns = np.nonzero(labels == Label.ROAD)
            grey = photo[rows, columns].astype(float).mean(1)
            low, high = np.quantile(rows, (0.25, 0.75))
            near.append(grey[rows >= high].mean())
            far.append(grey[rows <= low].mean())
        near_to_far[name] = np.mean(near) / np.mean(far)
    assert WEATHERS["night"].beam > 0 == WEATHERS["overcast"].beam
    assert near_to_far["night"] > 1.15 * near_to_far["overcast"], near_to_far


@pytest.mark.parametrize("size", [(32, 32), (60, 100), (37, 91), (96, 96)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    photo, labels = render_scene(city_style("zurich"), 0, 2, size)
    assert (photo.shape, labels.shape) == ((*size, 3), size)
    assert photo.dtype == labels.dtype == np.uint8


@pytest.mark.parametrize("city", ["aachen", "hamburg", "lindau"])
def test_pixels_obey_the_geometry_of_a_street(city: str) -> None:
    labels = labels_of(city, 6)
    rows = np.arange(SIZE[0])[None, :, None] * np.ones(labels.shape)
    horizon = city_style(city).horizon * SIZE[0]
    assert rows[labels == Label.SKY].max() < horizon + 2
    assert rows[labels == Label.ROAD].min() > horizon - 2
    mean = {label: rows[labels == label].mean() for label in Label if (labels == label).any()}
    assert mean[Label.SKY] < mean[Label.BUILDING] < mean[Label.CAR] < mean[Label.ROAD]
    assert mean[Label.TRAFFIC_SIGN] < mean[Label.PERSON] < mean[Label.SIDEWALK]


def test_road_narrows_with_distance() -> None:
    width = (labels_of("erfurt", 6) == Label.ROAD).sum(2).mean(0)
    bottom = int(SIZE[0] * 0.8)
    assert width[bottom] > width[int(SIZE[0] * 0.6)] > width[int(SIZE[0] * 0.5)]


def test_surfaces_are_rougher_than_the_sky() -> None:
    """Mean step between neighbours of one class: leaves most, walls and roads more than sky."""
    style = replace(city_style("ulm"), noise=0.0)
    steps = {}
    for label in (Label.SKY, Label.ROAD, Label.BUILDING, Label.VEGETATION):
        found = []
        for index in range(4):
            photo, labels = render_scene(style, 0, index, (128, 256))
            grey = photo.astype(float).mean(2)
            same = (labels[:, 1:] == label) & (labels[:, :-1] == label)
            found.append(np.abs(np.diff(grey, axis=1))[same])
        steps[label] = np.concatenate(found).mean()
    assert steps[Label.SKY] < min(steps[Label.ROAD], steps[Label.BUILDING])
    assert steps[Label.VEGETATION] > 1.5 * steps[Label.BUILDING]


def test_cities_differ_more_than_their_scenes() -> None:
    """Mean colours of two halves of a city lie nearer to each other than to other cities."""
    halves = []
    for city in TRAIN_CITIES:
        style = city_style(city)
        means = [render_scene(style, 0, i, SIZE)[0].mean((0, 1)) for i in range(8)]
        halves.append((np.mean(means[::2], axis=0), np.mean(means[1::2], axis=0)))
    within = np.mean([np.linalg.norm(a - b) for a, b in halves])
    between = np.mean([np.linalg.norm(a - d) for (a, _), (_, d) in combinations(halves, 2)])
    assert between > 1.5 * within
    assert len({city_style(city) for city in (*TRAIN_CITIES, *VAL_CITIES)}) == 21
