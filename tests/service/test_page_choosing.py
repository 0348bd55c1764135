"""The ways in which a picture comes to the page, and one picture after another."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import small_service
from chromium import needs_chromium
from recorded_service import RecordedService, recorded_service
from watched_page import WatchedPage, watched_page

from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = needs_chromium

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def file(size: tuple[int, int] = small_service.SIZE, name: str = "street.png") -> dict[str, object]:
    content = small_service.png(small_service.photograph(size))
    return {"name": name, "mimeType": "image/png", "buffer": content}


@pytest.fixture(scope="module")
def service() -> Iterator[RecordedService]:
    segmenter = small_service.segmenter(fit="resize")
    with recorded_service(create_app(segmenter, attack=lambda query: query)) as found:
        yield found


@pytest.fixture
def watched(browser: "Browser", service: RecordedService) -> Iterator[WatchedPage]:
    with watched_page(browser, service.url) as found:
        yield found
        assert found.complaints == []


def answered(watched: WatchedPage) -> None:
    watched.page.click("#send")
    watched.page.wait_for_selector("#result:visible")


def test_the_same_file_can_be_chosen_again(watched: WatchedPage) -> None:
    watched.choose(file())
    assert watched.page.evaluate("document.getElementById('file').value") == ""


@pytest.mark.parametrize(("kind", "key", "word"), [
    ("paste", "clipboardData", "pasted"), ("drop", "dataTransfer", "dropped"),
])  # fmt: skip
def test_files_are_taken_by_paste_and_drop_and_what_is_none_is_said(
    watched: WatchedPage, kind: str, key: str, word: str
) -> None:
    give = """async ([kind, key, address]) => {
        const held = new DataTransfer();
        if (address) {
            const content = await (await fetch(address)).blob();
            held.items.add(new File([content], "a.png", { type: "image/png" }));
        } else held.setData("text/plain", "words");
        const event = new Event(kind, { bubbles: true, cancelable: true });
        document.body.dispatchEvent(Object.defineProperty(event, key, { value: held }));
    }"""
    watched.page.evaluate(give, [kind, key, "/page/scenes/avenue.png"])
    watched.page.wait_for_selector("#send:enabled")
    watched.page.evaluate(give, [kind, key, None])
    watched.page.wait_for_selector(f"#choose-error:has-text('What was {word} is no file')")
    assert not watched.page.is_visible("#send") and not watched.page.is_visible("#photograph")
    assert watched.text("#gets-caption") == "What the service gets, and nothing else."


def test_the_last_of_two_pictures_counts_whichever_is_read_first(watched: WatchedPage) -> None:
    watched.page.evaluate("""() => {
        const read = createImageBitmap;
        let calls = 0;
        window.createImageBitmap = async (...given) => {
            const isFirst = calls++ === 0;
            const found = await read(...given);
            if (isFirst) await new Promise((resolve) => setTimeout(resolve, 1500));
            window.wasLate = isFirst;
            return found;
        };
    }""")
    watched.page.set_input_files("#file", [file()])
    watched.page.click("#samples button >> nth=1")
    watched.page.wait_for_selector("#send:enabled")
    watched.page.wait_for_timeout(2000)
    assert watched.page.evaluate("window.wasLate")
    assert watched.page.get_attribute("#photograph", "alt") != "Your picture"
    assert "summer" in (watched.page.get_attribute("#photograph", "src") or "")


@pytest.mark.parametrize("size", [(64, 48), (300, 40), (40, 300)])
def test_pictures_of_any_shape_fill_their_frames(
    watched: WatchedPage, size: tuple[int, int]
) -> None:
    watched.choose(file(size))
    answered(watched)
    found = watched.page.evaluate("""() => [...document.querySelectorAll(".frame")].map((frame) => {
        const [outer, inner] = [frame, [...frame.querySelectorAll("img, canvas")]
            .find((each) => each.checkVisibility())].map((each) => each.getBoundingClientRect());
        return [outer.width / outer.height, inner.width - outer.width, inner.height - outer.height];
    })""")
    assert len(found) == 3
    for ratio, across, down in found:
        assert ratio == pytest.approx(size[1] / size[0], rel=0.05)
        assert abs(across) < 0.5 and abs(down) < 0.5


def test_a_legend_that_is_left_draws_nothing_of_the_picture_before(watched: WatchedPage) -> None:
    watched.choose(file())
    answered(watched)
    watched.page.focus("#legend button")
    watched.choose(file((48, 64)))  # and there may be no complaint


def test_nothing_is_highlighted_by_a_pointer_at_rest(watched: WatchedPage) -> None:
    watched.choose(file())
    answered(watched)
    opaque = """() => {
        const map = document.getElementById("map");
        const copy = new OffscreenCanvas(map.width, map.height).getContext("2d");
        copy.drawImage(map, 0, 0);
        const { data } = copy.getImageData(0, 0, map.width, map.height);
        return data.every((value, i) => i % 4 !== 3 || value === 255);
    }"""
    button = watched.page.locator("#legend button").first
    box = button.bounding_box()
    assert box is not None
    button.dispatch_event("pointerenter")
    assert watched.page.evaluate(opaque), "the page scrolled under the pointer"
    watched.page.mouse.move(box["x"] + 5, box["y"] + 5)
    assert not watched.page.evaluate(opaque), "somebody pointed at it"


def test_the_focus_goes_on_with_the_answer(watched: WatchedPage) -> None:
    watched.choose(file())
    watched.page.focus("#send")
    watched.page.keyboard.press("Enter")
    watched.page.wait_for_selector("#result:visible")
    watched.page.keyboard.press("Tab")
    assert watched.page.evaluate("document.activeElement.id") == "view-labels"


def test_a_phone_offers_its_camera_and_a_desk_does_not(
    browser: "Browser", watched: WatchedPage, service: RecordedService
) -> None:
    assert not watched.page.is_visible("label[for=camera]")
    with watched_page(browser, service.url, **PHONE) as phone:
        cdp = phone.page.context.new_cdp_session(phone.page)
        cdp.send("Emulation.setEmulatedMedia", {"features": [
            {"name": "hover", "value": "none"}, {"name": "pointer", "value": "coarse"},
        ]})  # fmt: skip
        assert phone.page.is_visible("label[for=camera]") and not phone.page.is_visible(".hint")
        assert phone.page.get_attribute("#camera", "capture") == "environment"
        phone.page.set_input_files("#camera", [file()])
        phone.page.wait_for_selector("#key:visible")


def test_what_the_service_takes_is_not_exceeded_by_padding(browser: "Browser") -> None:
    segmenter = small_service.segmenter(fit="crop")
    most = 8192  # 90 x 91 pixels are fewer, and more when they are padded to blocks of 8

    def with_limit(route: "Route") -> None:
        told = route.fetch().json()
        route.fulfill(json=told | {"limits": told["limits"] | {"max_pixels": most}})

    with (
        recorded_service(create_app(segmenter)) as found,
        watched_page(browser, None) as watched,
    ):
        watched.page.route("**/v1/model", with_limit)
        watched.page.goto(found.url)
        watched.page.wait_for_selector("#samples button:enabled")
        for size in ((90, 91), (90, 89), (1000, 30), (64, 128)):
            watched.choose(file(size))
            answered(watched)
            height, width = small_service.pixels(found.posted()[-1].body).shape[:2]
            assert most / 2 < height * width <= most, size
        assert (height, width) == (64, 128), "what fits is not scaled"
