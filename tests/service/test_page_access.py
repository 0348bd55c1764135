"""For everybody: by keyboard, by screen reader, on a phone, in the dark."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import small_service
from chromium import needs_chromium
from recorded_service import RecordedService, recorded_service
from watched_page import WatchedPage, watched_page

from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

PHONE = {"width": 390, "height": 844}
FILE = {
    "name": "street.png",
    "mimeType": "image/png",
    "buffer": small_service.png(small_service.photograph()),
}
CONTROLS = {
    "button",
    "link",
    "textbox",
    "slider",
    "radio",
    "switch",
    "checkbox",
    "DisclosureTriangle",
}
WANTED = 4.5
"""Least contrast of text, by WCAG 2.2 (1.4.3)."""
CONTRASTS = """
() => {
  const UNSEEN = ".unseen, .skip, :disabled, script";
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = parse(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
    throw new Error("nothing behind the text");
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255)
      .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest(UNSEEN)) continue;
    const pair = [parse(getComputedStyle(element).color).slice(0, 3), behind(element)];
    const [dark, bright] = pair.map(luminance).sort((a, b) => a - b);
    found.push([(bright + 0.05) / (dark + 0.05), text.slice(0, 40)]);
  }
  return found;
}
"""


@pytest.fixture(scope="module")
def service() -> Iterator[RecordedService]:
    segmenter = small_service.segmenter(fit="resize")
    with recorded_service(create_app(segmenter, attack=lambda query: query)) as found:
        yield found


def through_all_steps(watched: WatchedPage) -> Iterator[str]:
    """The page at each step."""
    yield "at the start"
    watched.choose(FILE)
    yield "encrypted"
    watched.page.check("#attack-switch")
    watched.page.wait_for_selector("#restored:visible")
    yield "attacked"
    watched.page.click("#send")
    watched.page.wait_for_selector("#result:visible")
    yield "answered"
    watched.page.check("#view-confidence", force=True)
    watched.page.click("summary")
    yield "confidence, and how to check"
    watched.page.set_input_files("#file", [FILE | {"buffer": b"none"}])
    watched.page.wait_for_selector("#choose-error:visible")
    yield "an error"


def named(watched: WatchedPage) -> list[tuple[str, str]]:
    """Role and name of everything that a screen reader may stop at."""
    session = watched.page.context.new_cdp_session(watched.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    told: list[dict[str, Any]] = [node for node in nodes if not node.get("ignored")]
    return [
        (str(node["role"]["value"]), str(node.get("name", {}).get("value", ""))) for node in told
    ]


def test_every_control_and_picture_has_a_name(browser: "Browser", service: RecordedService) -> None:
    with watched_page(browser, service.url) as watched:
        met = set()
        for step in through_all_steps(watched):
            found = named(watched)
            roles = [role for role, _ in found]
            met |= set(roles)
            assert not [pair for pair in found if pair[0] in CONTROLS and not pair[1].strip()], step
            assert not [p for p in found if p[0] in ("image", "canvas", "img") and not p[1]], step
            assert roles.count("main") == 1 and roles.count("heading") == 5, step
        assert {"button", "slider", "radio", "switch"} <= met
        outline = watched.page.evaluate(
            "[...document.querySelectorAll('h1, h2')].map((each) => each.localName)"
        )
        assert outline == ["h1", "h2", "h2", "h2", "h2"]
        assert watched.page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(browser: "Browser", service: RecordedService, scheme: Any) -> None:
    with watched_page(browser, service.url, color_scheme=scheme) as watched:
        for step in through_all_steps(watched):
            found = watched.page.evaluate(CONTRASTS)
            assert len(found) > 10
            assert not [pair for pair in found if pair[0] < WANTED], (step, scheme)


def test_a_phone_needs_no_sideways_scrolling(browser: "Browser", service: RecordedService) -> None:
    with watched_page(browser, service.url, viewport=PHONE, has_touch=True) as watched:
        for step in through_all_steps(watched):
            assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390, step
            small = watched.page.evaluate("""() =>
                [...document.querySelectorAll("button, .button, .switch, .views label, summary")]
                    .filter((each) => each.checkVisibility())
                    .filter((each) => each.getBoundingClientRect().height < 24)
                    .map((each) => each.textContent)""")
            assert small == [], f"{step}: smaller than a finger (WCAG 2.5.8)"


def test_the_keyboard_alone_suffices_and_its_focus_is_seen(
    browser: "Browser", service: RecordedService
) -> None:
    with watched_page(browser, service.url) as watched:
        press = watched.page.keyboard.press

        def go_to(selector: str) -> None:
            for _ in range(40):
                press("Tab")
                if watched.page.evaluate("(css) => document.activeElement.matches(css)", selector):
                    return
            raise AssertionError(f"{selector} cannot be reached by Tab")

        def outlined() -> bool:
            found: bool = watched.page.evaluate("""() => {
                const ways = [document.activeElement, document.activeElement.parentElement,
                    document.activeElement.closest("fieldset, .drop")?.querySelector(".button"),
                    document.activeElement.closest("fieldset")];
                return ways.some((each) => each && getComputedStyle(each).outlineStyle === "solid");
            }""")
            return found

        go_to(".skip")
        assert watched.page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
        for selector in ("#file", "#samples button"):
            go_to(selector)
            assert outlined(), selector
        press("Enter")
        watched.page.wait_for_selector("#key:visible")
        go_to("#attack-switch")
        assert outlined()
        press("Space")
        watched.page.wait_for_selector("#restored:visible")
        go_to("#send")
        assert outlined()
        press("Enter")
        watched.page.wait_for_selector("#result:visible")
        go_to("[name=view]")
        assert outlined()
        press("ArrowRight")
        watched.page.wait_for_selector("#scale:visible")
        go_to("#opacity")
        assert outlined()
        press("Home")
        assert (
            watched.page.evaluate("getComputedStyle(document.getElementById('map')).opacity") == "0"
        )


def test_what_happens_is_said_to_screen_readers(
    browser: "Browser", service: RecordedService
) -> None:
    with watched_page(browser, service.url) as watched:
        assert watched.page.get_attribute("#status", "aria-live") == "polite"
        watched.choose(FILE)
        watched.page.wait_for_selector(
            "#status:has-text('Nothing has been sent')", state="attached"
        )
        watched.page.click("#send")
        watched.page.wait_for_selector("#result:visible")
        told = watched.page.text_content("#status") or ""
        assert told.startswith("The map is here: ") and "%" in told
        assert watched.page.get_attribute("#map", "aria-label") == told.replace(
            "The map is here: ", "Map of the classes: "
        ).rstrip(".")


def test_nothing_moves_for_those_who_asked_for_that(
    browser: "Browser", service: RecordedService
) -> None:
    with watched_page(browser, service.url) as watched:
        scrolling = "getComputedStyle(document.documentElement).scrollBehavior"
        assert watched.page.evaluate(scrolling) == "auto"
        moving = watched.page.evaluate("""() => {
            const all = [...document.querySelectorAll("*")];
            return all.map((each) => getComputedStyle(each)).filter((each) =>
                each.transitionDuration !== "0s" || each.animationName !== "none").length;
        }""")
        assert moving == 0
