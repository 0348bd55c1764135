import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fl_ppseg.data.distortion import Distortion, distort, draw_distortion
from fl_ppseg.data.views import (
    GREY,
    SizePolicy,
    augment,
    fit,
    fit_for_scoring,
    is_unaugmented,
    scaled_labels,
    scored_size,
    view_generator,
    views,
)

POLICIES: tuple[SizePolicy, ...] = ("resize", "crop")
sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def scene(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of 4x4 pixels of a random class, their colour a function of it."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 19, (-(-height // 4), -(-width // 4)))
    labels = np.kron(tiles, np.ones((4, 4)))[:height, :width].astype(np.uint8)
    return np.stack([labels * 10, 255 - labels * 10, labels]), labels


@settings(max_examples=30)
@given(sizes, sizes, st.sampled_from(POLICIES), st.integers(0, 2**32))
def test_any_size_becomes_the_size_wanted(size, image_size, policy, seed) -> None:
    image, labels = scene(*size)
    for view, cut in views(image, labels, image_size, policy, 3, seed, "train/aachen/x"):
        assert view.shape == (3, *image_size) and cut.shape == image_size
        assert view.dtype == cut.dtype == np.uint8
        assert view.flags.c_contiguous and cut.flags.c_contiguous
        assert set(np.unique(cut)) <= {*np.unique(labels), 255}


@pytest.mark.parametrize("policy", POLICIES)
def test_fitting_the_right_size_is_the_identity(policy: SizePolicy) -> None:
    image, labels = scene(24, 40)
    view, cut = fit(image, labels, (24, 40), policy)
    np.testing.assert_array_equal(view, image)
    np.testing.assert_array_equal(cut, labels)


def test_resize_equals_pillow() -> None:
    image, labels = scene(48, 80)
    view, cut = fit(image, labels, (20, 30), "resize")
    picture = Image.fromarray(image.transpose(1, 2, 0))
    expected = np.asarray(picture.resize((30, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(view, expected)
    nearest = Image.fromarray(labels).resize((30, 20), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(cut, np.asarray(nearest))


def test_crop_cuts_the_centre() -> None:
    image, labels = scene(30, 50)
    view, cut = fit(image, labels, (10, 20), "crop")
    np.testing.assert_array_equal(view, image[:, 10:20, 15:35])
    np.testing.assert_array_equal(cut, labels[10:20, 15:35])


def test_crop_pads_what_is_smaller_on_both_sides() -> None:
    image, labels = scene(8, 30)
    view, cut = fit(image, labels, (16, 20), "crop")
    np.testing.assert_array_equal(view[:, 4:12], image[..., 5:25])
    np.testing.assert_array_equal(cut[4:12], labels[:, 5:25])
    outside = np.r_[0:4, 12:16]
    assert (view[:, outside] == GREY).all() and (cut[outside] == 255).all()


def test_views_do_not_depend_on_order_or_number() -> None:
    image, labels = scene(64, 128)
    few = list(views(image, labels, (32, 64), "resize", 2, 7, "train/aachen/a"))
    list(views(image, labels, (32, 64), "resize", 3, 7, "train/aachen/b"))
    many = list(views(image, labels, (32, 64), "resize", 5, 7, "train/aachen/a"))
    for one, other in zip(few, many, strict=False):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(many[0][0], fit(image, labels, (32, 64), "resize")[0])
    assert len({view.tobytes() for view, _ in many}) == 5


def test_one_fresh_view_of_four_is_the_image_itself() -> None:
    image, labels = scene(64, 128)
    itself = fit(image, labels, (32, 64), "resize")[0]
    name = "train/aachen/a"
    fresh = list(views(image, labels, (32, 64), "resize", 40, 7, name, 1))
    found = [number for number, (view, _) in enumerate(fresh, 1) if (view == itself).all()]
    assert found == [number for number in range(1, 41) if is_unaugmented(7, name, number)]
    drawn = [is_unaugmented(seed, name, view) for seed in range(20) for view in range(1, 101)]
    assert sum(drawn) == pytest.approx(500, abs=60)  # three deviations of 19
    of_others = {is_unaugmented(7, f"train/aachen/{n}", 1) for n in range(40)}
    assert of_others == {True, False}  # not all images of a round


def test_fixed_views_after_the_first_are_all_augmented() -> None:
    image, labels = scene(64, 128)
    itself = fit(image, labels, (32, 64), "resize")[0]
    fixed = list(views(image, labels, (32, 64), "resize", 40, 7, "train/aachen/a"))
    assert [number for number, (view, _) in enumerate(fixed) if (view == itself).all()] == [0]


def test_seed_scene_and_view_each_change_the_draw() -> None:
    draws = [
        view_generator(seed, scene_id, view).integers(2**63)
        for seed in (0, 1, -1)
        for scene_id in ("a", "b", "1\na")
        for view in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_view_generator_is_the_same_on_every_machine() -> None:
    assert view_generator(0, "train/aachen/x", 1).integers(2**32) == 1549692197


@pytest.mark.parametrize(("height", "width"), [(20, 30), (8, 40)])
def test_whole_images_are_scored_resized_or_as_frames_of_blocks(height: int, width: int) -> None:
    image, labels = scene(height, width)
    fitted, whole = fit_for_scoring(image, labels, (12, 12), "resize", 4)
    assert fitted.shape == (3, 12, 12)
    np.testing.assert_array_equal(whole, labels)
    frame, padded = fit_for_scoring(image, labels, (12, 12), "crop", 4)
    rows, columns = padded.shape
    assert frame.shape == (3, rows, columns) and rows % 4 == columns % 4 == 0
    assert rows - height < 4 or rows == 12
    assert 0 <= columns - width < 4
    top, left = (rows - height + 1) // 2, (columns - width + 1) // 2
    inside = np.s_[..., top : top + height, left : left + width]
    np.testing.assert_array_equal(frame[inside], image)
    np.testing.assert_array_equal(padded[inside], labels)
    assert (padded == 255).sum() == padded.size - labels.size + (labels == 255).sum()
    for policy in ("resize", "crop"):
        _, scored = fit_for_scoring(image, labels, (12, 12), policy, 4)
        assert scored_size((height, width), (12, 12), policy, 4) == scored.shape


@pytest.mark.parametrize("size", [(20, 30), (6, 9)])
def test_label_maps_are_scaled_as_views_are(size: tuple[int, int]) -> None:
    image, labels = scene(*size)
    np.testing.assert_array_equal(
        scaled_labels(labels, (10, 12)), fit(image, labels, (10, 12), "resize")[1]
    )


def test_pixels_and_labels_move_together() -> None:
    # One class is dark and the other light, before as after any distortion.
    _, tiles = scene(64, 64)
    labels = np.where(tiles < 10, 0, 18).astype(np.uint8)
    image = np.stack([np.where(labels == 0, 40, 200)] * 3).astype(np.uint8)
    for view in range(20):
        cut_image, cut = augment(image, labels, (64, 64), view_generator(0, "s", view))
        dark, light = (np.median(cut_image[:, cut == value]) for value in (0, 18))
        threshold = (dark + light) / 2
        agree = (cut_image.mean(axis=0) > threshold) == (cut == 18)
        assert light - dark > 40
        assert agree[cut != 255].mean() > 0.9


def test_scale_spreads_from_half_to_double() -> None:
    # Padding tells the scale: a ratio r < 1, one view in three, fills r * r of the window.
    image, labels = scene(64, 64)
    shares = []
    for view in range(300):
        _, cut = augment(image, labels, (64, 64), view_generator(0, "s", view))
        shares.append((cut != 255).mean())
    seen = np.array(shares)
    assert 0.25 < (seen < 1).mean() < 0.42
    assert seen.min() == pytest.approx(0.25, abs=0.03)


def test_padding_is_grey_whatever_the_distortion() -> None:
    image, labels = scene(64, 64)
    for view in range(30):
        cut_image, cut = augment(image, labels, (64, 64), view_generator(0, "s", view))
        assert (cut_image[:, cut == 255] == GREY).all()


def test_half_of_the_views_are_flipped() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None] // 4, 64, axis=0)
    image = np.stack([ramp] * 3)
    rising = []
    for view in range(200):
        _, cut = augment(image, ramp, (64, 64), view_generator(0, "s", view))
        row = cut[cut.min(axis=1) < 255][0].astype(int)
        row = row[row < 255]
        rising.append(row[-1] > row[0])
    assert 0.4 < np.mean(rising) < 0.6


def test_no_class_fills_a_crop_where_another_place_avoids_it() -> None:
    # Left half road, right half sky: at double size every third crop would be of one class only.
    labels = np.repeat(np.repeat([[0, 10]], 32, axis=1), 64, axis=0).astype(np.uint8)
    image = np.zeros((3, 64, 64), np.uint8)
    for view in range(100):
        _, cut = augment(image, labels, (64, 64), view_generator(0, "s", view))
        counts = np.bincount(cut.ravel(), minlength=256)[:255]
        assert counts.max() < 0.75 * counts.sum()


@pytest.mark.parametrize("value", [0, 255])
def test_a_scene_of_one_class_still_gives_views(value: int) -> None:
    image, labels = np.zeros((3, 9, 9), np.uint8), np.full((9, 9), value, np.uint8)
    _, cut = augment(image, labels, (16, 16), view_generator(0, "s", 0), "crop")
    assert set(np.unique(cut)) <= {value, 255}


def painted(colour: tuple[int, int, int], distortion: Distortion) -> tuple[int, ...]:
    picture = Image.new("RGB", (2, 2), colour)
    pixel = distort(picture, distortion).getpixel((1, 1))
    assert isinstance(pixel, tuple)
    return tuple(int(value) for value in pixel)


def test_neutral_distortion_changes_nothing() -> None:
    assert painted((12, 200, 77), Distortion()) == (12, 200, 77)


def test_tones_by_hand() -> None:
    assert painted((10, 100, 250), Distortion(brightness=20.0)) == (30, 120, 255)
    assert painted((10, 100, 250), Distortion(contrast_before=0.5)) == (5, 50, 125)
    assert painted((10, 100, 250), Distortion(brightness=-20, contrast_after=2)) == (0, 160, 255)
    # Cut to 0..255 between the steps, as mmsegmentation does.
    assert painted((250,) * 3, Distortion(brightness=32.0, contrast_before=0.5)) == (127,) * 3


@pytest.mark.parametrize("colour", [(200, 30, 60), (40, 180, 90), (20, 20, 160)])
def test_hue_and_saturation_equal_colorsys(colour: tuple[int, int, int]) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    expected = colorsys.hsv_to_rgb((hue + 20 / 256) % 1, saturation * 0.6, value)
    got = painted(colour, Distortion(hue=20, saturation=0.6))
    np.testing.assert_allclose(got, np.array(expected) * 255, atol=6)


def test_draws_follow_mmsegmentation() -> None:
    draws = [draw_distortion(view_generator(0, "s", view)) for view in range(400)]
    used = np.array(
        [
            (
                d.brightness != 0,
                d.contrast_before != 1 or d.contrast_after != 1,
                d.saturation != 1,
                d.hue != 0,
            )
            for d in draws
        ]
    )
    assert (np.abs(used.mean(axis=0) - 0.5) < 0.08).all()
    assert all(d.contrast_before == 1 or d.contrast_after == 1 for d in draws)
    assert max(abs(d.brightness) for d in draws) <= 32
    assert max(abs(d.hue) for d in draws) * 360 / 256 <= 36
