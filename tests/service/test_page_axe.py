"""What axe-core finds against WCAG 2.2 AA at each step of the page: nothing.

axe-core (MPL-2.0) comes with a package of the extra dev; nothing of it is handed on. It is put into
a page whose policy is not applied; the policy itself is tested beside the other pages.
"""

from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import small_service
from chromium import needs_chromium
from recorded_service import RecordedService, recorded_service
from watched_page import WatchedPage, watched_page

from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

AXE = "axe_playwright_python"
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(find_spec(AXE) is None, reason=f"{AXE}, of the extra dev, is not here"),
]

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
FILE = {
    "name": "street.png",
    "mimeType": "image/png",
    "buffer": small_service.png(small_service.photograph()),
}


@pytest.fixture(scope="module")
def service() -> Iterator[RecordedService]:
    segmenter = small_service.segmenter(fit="resize")
    with recorded_service(create_app(segmenter, attack=lambda query: query)) as found:
        yield found


def violations(watched: WatchedPage) -> list[tuple[str, list[str]]]:
    """The rules that are broken, each with the elements that break it."""
    if not watched.page.evaluate("'axe' in window"):
        watched.page.evaluate(files(AXE).joinpath("axe.min.js").read_text(encoding="utf-8"))
    found: dict[str, list[dict[str, Any]]] = watched.page.evaluate(
        "(tags) => axe.run(document, { runOnly: tags })", LEVELS
    )
    assert len(found["passes"]) > 10, "hardly a rule was tried"
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


def all_states(watched: WatchedPage) -> Iterator[str]:
    page = watched.page
    yield "start"
    page.evaluate("""() => {
        window.read = createImageBitmap;
        createImageBitmap = () => new Promise(() => {});
    }""")
    page.click("#samples button >> nth=1")
    yield "a picture is read"
    page.evaluate("() => { createImageBitmap = read; }")
    watched.choose(FILE)
    yield "encrypted"
    page.check("#attack-switch")
    page.wait_for_selector("#restored:visible")
    yield "attacked"
    page.route(
        "**/v1/segment*", lambda route: route.fulfill(status=503, headers={"Retry-After": "60"})
    )
    page.click("#send")
    page.wait_for_selector("#stop:visible")
    yield "the service is busy"
    page.click("#stop")
    page.unroute("**/v1/segment*")
    page.click("#send")
    page.wait_for_selector("#result:visible")
    yield "answered"
    page.click("#legend button >> nth=0")
    page.click("summary")
    yield "a class is held, and how to check"
    page.check("#view-confidence", force=True)
    yield "confidence"
    page.set_input_files("#file", [FILE | {"buffer": b"none"}])
    page.wait_for_selector("#choose-error:visible")
    yield "no picture"
    page.route("**/v1/model", lambda route: route.fulfill(status=401))
    page.reload()
    page.wait_for_selector("#token:visible")
    yield "a token is wanted"
    page.route("**/v1/model", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#unreachable:visible")
    yield "the service is gone"


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: "Browser", service: RecordedService, options: dict[str, Any], scheme: str
) -> None:
    with watched_page(
        browser, service.url, bypass_csp=True, color_scheme=scheme, **options
    ) as watched:
        assert {
            state: found for state in all_states(watched) if (found := violations(watched))
        } == {}


def test_axe_would_find_what_is_wrong(browser: "Browser", service: RecordedService) -> None:
    with watched_page(browser, service.url, bypass_csp=True) as watched:
        watched.page.evaluate("""() => {
            document.querySelector("#samples img").alt = "";
            document.querySelector(".lead").style.color = "#aaa";
            document.documentElement.lang = "";
        }""")
        broken = {rule for rule, _ in violations(watched)}
        assert {"button-name", "color-contrast", "html-has-lang"} <= broken
