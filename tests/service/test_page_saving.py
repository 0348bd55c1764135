"""What may be kept of an answer: files that hold what the service answered."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import small_service
from chromium import needs_chromium
from numpy.typing import NDArray
from PIL import Image
from recorded_service import RecordedService, recorded_service
from watched_page import WatchedPage, watched_page

from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

OPACITY = 0.4


@pytest.fixture(scope="module", params=["resize", "crop"])
def service(request: pytest.FixtureRequest) -> Iterator[RecordedService]:
    with recorded_service(create_app(small_service.segmenter(fit=request.param))) as found:
        yield found


def saved(watched: WatchedPage, button: str) -> tuple[str, NDArray[np.uint8]]:
    """Name and pixels of the PNG that a button gives."""
    with watched.page.expect_download() as download:
        watched.page.click(button)
    path = Path(download.value.path())
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return download.value.suggested_filename, np.asarray(picture)


@pytest.mark.parametrize("size", [(32, 64), (90, 50), (1100, 1500)])
def test_saved_files_are_the_answer_at_the_size_of_the_picture(
    browser: "Browser", service: RecordedService, size: tuple[int, int]
) -> None:
    picture = small_service.photograph(size)
    file = {"name": "a.b.png", "mimeType": "image/png", "buffer": small_service.png(picture)}
    with watched_page(browser, service.url) as watched:
        watched.choose(file)
        with watched.page.expect_response("**/v1/segment*") as response:
            watched.page.click("#send")
        watched.page.wait_for_selector("#result:visible")
        answer = Image.open(BytesIO(response.value.body()))
        posted = len(service.posted())
        name, labels = saved(watched, "#save-labels")
        assert name == "a.b_labelTrainIds.png"
        expected = np.asarray(answer.getchannel(0))
        if service_pads(expected, size):
            top, left = (
                (side - own + 1) // 2 for side, own in zip(expected.shape, size, strict=True)
            )
            expected = expected[top : top + size[0], left : left + size[1]]
        else:
            rows, columns = (
                (2 * np.arange(own) + 1) * side // (2 * own)  # where the middle of a pixel lies
                for side, own in zip(expected.shape, size, strict=True)
            )
            expected = expected[rows][:, columns]
        assert labels.shape == size and len(np.unique(labels)) > 1
        np.testing.assert_array_equal(labels, expected)
        watched.page.evaluate(
            """(value) => {
            document.getElementById("opacity").value = value;
            document.getElementById("opacity").dispatchEvent(new Event("input"));
        }""",
            100 * OPACITY,
        )
        name, overlay = saved(watched, "#save-overlay")
        assert name == "overlay_a.b.png" and overlay.shape[:2] == size
        colours = small_service.segmenter().classes.colourise(labels)
        mixed = (1 - OPACITY) * picture.transpose(1, 2, 0) + OPACITY * colours
        assert np.median(np.abs(overlay[..., :3] - mixed)) <= 2
        assert "is saved" in (watched.page.text_content("#status") or "")
        assert len(service.posted()) == posted, "what is saved was sent"
        assert watched.complaints == []


def service_pads(answer: NDArray[np.uint8], size: tuple[int, int]) -> bool:
    """Whether an answer is of a query that was padded to whole blocks, not scaled."""
    block = small_service.SPEC.block_size
    least = [
        max(-(-side // block) * block, own)
        for side, own in zip(size, small_service.SIZE, strict=True)
    ]
    return list(answer.shape) == least


def test_what_cannot_be_saved_is_said(browser: "Browser", service: RecordedService) -> None:
    file = {
        "name": "a.png",
        "mimeType": "image/png",
        "buffer": small_service.png(small_service.photograph()),
    }
    with watched_page(browser, service.url) as watched:
        watched.choose(file)
        watched.page.click("#send")
        watched.page.wait_for_selector("#result:visible")
        watched.page.evaluate(
            "() => { HTMLCanvasElement.prototype.toBlob = (call) => call(null); }"
        )
        watched.page.click("#save-overlay")
        watched.page.wait_for_selector("#save-error:has-text('too large')")
