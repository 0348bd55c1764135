"""What the service answers, against the model itself, and polygons against the map they are of."""

import json

import numpy as np
import pytest
import small_service as small
from fastapi import HTTPException
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageChops, ImageDraw

from fl_ppseg.data.classes import load_class_table
from fl_ppseg.inference.segmenter import Segmentation
from fl_ppseg.service.answers import MAX_BORDERS, answer_of, rings
from fl_ppseg.service.documents import ModelDocument, Polygons
from fl_ppseg.system.version import VERSION

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = load_class_table("cityscapes")


def segment(client: TestClient, image: np.ndarray, **parameters: object) -> bytes:
    answer = client.post(
        "/v1/segment", content=small.png(image), headers=small.PNG, params=parameters
    )
    assert answer.status_code == 200, answer.text
    kind = "application/json" if parameters.get("answer") == "polygons" else "image/png"
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == "no-store"
    return answer.content


def test_the_answer_is_what_the_model_sees() -> None:
    model, image = small.segmenter(), small.query()
    (own,) = model.segment_batch(image[None])
    sure = np.rint(own.confidence * 255)
    with small.client(model) as client:
        np.testing.assert_array_equal(small.pixels(segment(client, image)), own.labels)
        confidence = small.pixels(segment(client, image, answer="confidence"))
        np.testing.assert_array_equal(confidence, sure)
        both = small.pixels(segment(client, image, answer="both"))
        np.testing.assert_array_equal(both[..., 0], own.labels)
        np.testing.assert_array_equal(both[..., 1], sure)
        assert not both[..., 2].any()
        polygons = Polygons.model_validate_json(segment(client, image, answer="polygons"))
    assert [each.train_id for each in polygons.classes] == np.unique(own.labels).tolist()
    assert (polygons.height, polygons.width) == small.SIZE


@pytest.mark.parametrize(
    ("parameters", "size"),
    [({"height": 48, "width": 90}, (48, 90)), ({"height": 7}, (7, 64)), ({"width": 99}, (32, 99))],
)
def test_the_answer_has_the_size_that_was_asked_for(
    parameters: dict[str, int], size: tuple[int, int]
) -> None:
    model, image = small.segmenter(), small.query()
    (own,) = model.segment_batch(image[None], size)
    with small.client(model) as client:
        np.testing.assert_array_equal(
            small.pixels(segment(client, image, **parameters)), own.labels
        )


def test_larger_frames_are_segmented_whole() -> None:
    model, image = small.segmenter(), small.query((48, 120))
    (own,) = model.segment_batch(image[None])
    with small.client(model) as client:
        np.testing.assert_array_equal(small.pixels(segment(client, image)), own.labels)


def test_the_model_says_what_a_query_must_be() -> None:
    with small.client() as client:
        about = ModelDocument.model_validate_json(client.get("/v1/model").content)
    assert about.query == small.SPEC
    assert about.version == VERSION
    assert [entry.name for entry in about.classes] == list(TABLE.names)
    assert [entry.train_id for entry in about.classes] == list(range(19))
    assert about.classes[0].colour == (128, 64, 128)
    assert not about.reconstruct


def test_what_an_attacker_sees_is_shown_where_there_is_a_network() -> None:
    image = small.query()
    with small.client(attack=lambda given: 255 - given) as client:
        assert client.get("/v1/model").json()["reconstruct"]
        answer = client.post("/v1/reconstruct", content=small.png(image), headers=small.PNG)
        np.testing.assert_array_equal(small.pixels(answer.content).transpose(2, 0, 1), 255 - image)
        plain = small.png(small.photograph())
        assert client.post("/v1/reconstruct", content=plain, headers=small.PNG).status_code == 422
    with small.client() as client:
        answer = client.post("/v1/reconstruct", content=small.png(image), headers=small.PNG)
        assert answer.status_code == 404
        assert "no attacker's network" in answer.json()["detail"]


def filled(found: list[dict[str, object]], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres lie in the rings by the even-odd rule, by Pillow's own filling."""
    scale = 8
    whole = Image.new("1", (size[1] * scale, size[0] * scale))
    for ring in found:
        one = Image.new("1", whole.size)
        points = [(x * scale, y * scale) for x, y in ring["points"]]  # type: ignore[attr-defined]
        ImageDraw.Draw(one).polygon(points, fill=1)
        whole = ImageChops.logical_xor(whole, one)
    return np.asarray(whole)[scale // 2 :: scale, scale // 2 :: scale]


def test_rings_of_a_square_with_a_hole() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:18, 5:25] = True
    mask[8:12, 10:20] = False
    outer, hole = sorted(rings(mask), key=lambda ring: ring["hole"])
    assert not outer["hole"] and hole["hole"]
    for ring, corners in ((outer, [[5, 2], [25, 18]]), (hole, [[10, 8], [20, 12]])):
        ends = np.min(ring["points"], axis=0), np.max(ring["points"], axis=0)
        np.testing.assert_allclose(ends, corners, atol=0.5)
    np.testing.assert_array_equal(filled([outer, hole], mask.shape), mask)


@given(arrays(bool, (6, 7)))
def test_rings_fill_their_regions(small_mask: np.ndarray) -> None:
    """Of regions that are larger than the tolerance, all but pixels at their borders."""
    mask = small_mask.repeat(8, axis=0).repeat(8, axis=1)
    wrong = filled(list(rings(mask)), mask.shape) != mask
    near = np.zeros_like(mask)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near |= np.roll(mask, (dy, dx), (0, 1)) != mask
    assert not (wrong & ~near).any()


def test_a_region_of_one_pixel_and_a_map_of_one_class_have_rings() -> None:
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    (ring,) = rings(mask)
    assert not ring["hole"] and len(ring["points"]) == 4
    (whole,) = rings(np.ones((4, 6), bool))
    np.testing.assert_allclose(np.ptp(whole["points"], axis=0), [6, 4], atol=0.5)
    assert list(rings(np.zeros((4, 6), bool))) == []


def test_a_map_in_pieces_becomes_no_polygons() -> None:
    noise = np.indices((600, 600)).sum(0).astype(np.uint8) % 2
    found = Segmentation(noise, np.ones(noise.shape, np.float32))
    assert np.count_nonzero(np.diff(noise, axis=0)) > MAX_BORDERS
    with pytest.raises(HTTPException, match="too many pieces"):
        answer_of(found, "polygons", TABLE)
    flat = answer_of(Segmentation(noise * 0, found.confidence), "polygons", TABLE)
    assert [each["name"] for each in json.loads(flat.content)["classes"]] == ["road"]
