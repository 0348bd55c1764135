"""What the page says when something is not as it should be: one line, and how to go on."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import small_service
from chromium import needs_chromium
from recorded_service import RecordedService, recorded_service
from watched_page import WatchedPage, watched_page

from fl_ppseg.service.app import create_app

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = needs_chromium

SEGMENTER = small_service.segmenter(fit="resize")
FILE = {
    "name": "street.png",
    "mimeType": "image/png",
    "buffer": small_service.png(small_service.photograph()),
}


@pytest.fixture(scope="module")
def service() -> Iterator[RecordedService]:
    with recorded_service(create_app(SEGMENTER, attack=lambda query: query)) as found:
        yield found


@pytest.fixture
def watched(browser: "Browser", service: RecordedService) -> Iterator[WatchedPage]:
    with watched_page(browser, None) as found:
        yield found
        told = [line for line in found.complaints if "Failed to load resource" not in line]
        assert told == []  # the browser itself notes refused requests


def opened(watched: WatchedPage, service: RecordedService) -> None:
    watched.page.goto(service.url)
    watched.page.wait_for_selector("#samples button:enabled")


def answers(watched: WatchedPage, pattern: str, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """Have the next requests answered so, one after another; then as the service does.

    Returns:
        The headers of all such requests.
    """
    left, seen = list(given), []

    def answer(route: "Route") -> None:
        seen.append(route.request.headers)
        if left:
            route.fulfill(**({"body": json.dumps({"detail": "no"})} | left.pop(0)))
        else:
            route.continue_()

    watched.page.route(pattern, answer)
    return seen


def line(watched: WatchedPage, selector: str) -> str:
    """An error's line, once it is shown."""
    watched.page.wait_for_selector(f"{selector}:visible")
    found = watched.text(selector)
    assert watched.page.get_attribute(selector, "role") == "alert" and found.strip()
    return found


def test_a_service_that_cannot_be_reached_is_asked_again(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.page.route("**/v1/model", lambda route: route.abort())
    watched.page.goto(service.url)
    assert "cannot be reached" in line(watched, "#unreachable")
    assert watched.page.is_disabled("#samples button >> nth=0") and watched.page.is_disabled(
        "#file"
    )
    watched.page.unroute("**/v1/model")
    watched.page.click("#reload")
    watched.page.wait_for_selector("#samples button:enabled")
    assert not watched.page.is_visible("#unreachable")


@pytest.mark.parametrize("pattern", ["**/v1/model", "**/v1/segment*"])
def test_a_token_is_asked_for_and_kept_in_memory_alone(
    watched: WatchedPage, service: RecordedService, pattern: str
) -> None:
    seen = answers(watched, pattern, {"status": 401})
    watched.page.goto(service.url)
    if "segment" in pattern:
        watched.page.wait_for_selector("#samples button:enabled")
        assert not watched.page.is_visible("#token")
        watched.choose(FILE)
        watched.page.click("#send")
    watched.page.wait_for_selector("#token-field:visible")
    watched.page.keyboard.type("abc-123")  # the field has the focus
    watched.page.keyboard.press("Enter")
    if "segment" in pattern:
        watched.page.wait_for_selector("#result:visible")
    else:
        watched.page.wait_for_selector("#samples button:enabled")
    assert [headers.get("authorization") for headers in seen] == [None, "Bearer abc-123"]
    assert not watched.page.is_visible("#token")
    assert watched.page.evaluate("document.getElementById('token-field').value") == ""
    assert watched.page.evaluate("localStorage.length + sessionStorage.length") == 0


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says_so(
    watched: WatchedPage, service: RecordedService, status: int
) -> None:
    busy = {"status": status, "headers": {"Retry-After": "1"}}
    opened(watched, service)
    seen = answers(watched, "**/v1/segment*", busy, busy)
    watched.choose(FILE)
    watched.page.click("#send")
    assert "busy. Asking again in 1 s" in line(watched, "#send-error")
    assert watched.page.is_visible("#stop") and watched.page.is_disabled("#send")
    assert "Sent." in watched.text("#gets-caption"), "it left the browser all the same"
    watched.page.wait_for_selector("#result:visible")
    assert len(seen) == 3 and not watched.page.is_visible("#send-error")


def test_waiting_for_a_busy_service_can_be_stopped(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    seen = answers(watched, "**/v1/segment*", {"status": 503, "headers": {"Retry-After": "60"}})
    watched.choose(FILE)
    watched.page.click("#send")
    watched.page.click("#stop")
    watched.page.wait_for_selector("#send:enabled")
    assert len(seen) == 1 and not watched.page.is_visible("#stop")


def test_a_service_that_stays_busy_is_left_alone(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    busy = {"status": 429, "headers": {"Retry-After": "1"}}
    seen = answers(watched, "**/v1/segment*", *[busy] * 9)
    watched.choose(FILE)
    watched.page.click("#send")
    watched.page.wait_for_selector("#send:enabled")
    assert len(seen) == 5 and line(watched, "#send-error") == "no"


def test_the_services_own_words_are_shown_as_text(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    words = "too large <img src=x onerror=alert(1)>"
    answers(watched, "**/v1/segment*", {"status": 413, "body": json.dumps({"detail": words})},
            {"status": 500, "body": "<html>"})  # fmt: skip
    watched.choose(FILE)
    watched.page.click("#send")
    assert line(watched, "#send-error") == words
    watched.page.click("#send")
    watched.page.wait_for_selector("#send-error:has-text('status 500')")


def test_an_attack_that_fails_leaves_the_ciphertext_in_view(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    answers(watched, "**/v1/reconstruct", {"status": 404})
    watched.choose(FILE)
    watched.page.click("#attack-switch")
    assert line(watched, "#attack-error") == "no"
    assert not watched.page.is_checked("#attack-switch")
    assert watched.page.is_visible("#ciphertext") and not watched.page.is_visible("#restored")


def test_an_answer_of_another_size_is_not_drawn(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    other = small_service.png(small_service.photograph((8, 8)))
    answers(watched, "**/v1/segment*", {"status": 200, "body": other, "content_type": "image/png"})
    watched.choose(FILE)
    watched.page.click("#send")
    assert "another size" in line(watched, "#send-error")
    assert not watched.page.is_visible("#result")


def test_a_file_that_is_no_picture_is_refused_and_another_may_follow(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    text = {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    watched.page.set_input_files("#file", [text])
    assert "no picture" in line(watched, "#choose-error")
    watched.choose(FILE)
    watched.page.set_input_files("#file", [text])
    assert "no picture" in line(watched, "#choose-error")
    for left in ("#send", "#again", "#key", "#ciphertext", "#photograph"):
        assert not watched.page.is_visible(left), "of the picture before"
    watched.choose(FILE)
    assert not watched.page.is_visible("#choose-error")


def test_a_browser_that_changes_pixels_is_not_trusted(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.page.add_init_script("""
        const exact = CanvasRenderingContext2D.prototype.getImageData;
        CanvasRenderingContext2D.prototype.getImageData = function (...where) {
            const found = exact.apply(this, where);
            found.data[100] ^= 1;
            return found;
        };""")
    opened(watched, service)
    watched.page.set_input_files("#file", [FILE])
    assert "changes the pixels" in line(watched, "#choose-error")
    assert not watched.page.is_visible("#send")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key": "none", "cipher": None, "versions": {}, "scope": None}, "plain pictures"),
        ({"key": "per-client", "adapts": True}, "a key that is kept"),
        ({"key": "shared"}, "a key that is kept"),
        ({"cipher": "rot13", "versions": {"rot13": 1}}, "rot13 is not in this page"),
        (
            {"cipher": "shuffle", "versions": {"shuffle": 9}},
            "version 1 of the cipher shuffle, not 9",
        ),
    ],
)
def test_a_model_that_the_page_cannot_ask_is_refused_in_words(
    watched: WatchedPage, service: RecordedService, changes: dict[str, Any], why: str
) -> None:
    with_query(watched, changes)
    watched.page.goto(service.url)
    assert why in line(watched, "#unreachable")
    assert watched.page.is_disabled("#file") and not watched.page.is_visible("#reload")


def test_a_model_of_keys_of_clients_takes_a_new_one_where_it_adapts_to_none(
    watched: WatchedPage, service: RecordedService
) -> None:
    with_query(watched, {"key": "per-client", "adapts": False})
    opened(watched, service)


def with_query(watched: WatchedPage, changes: dict[str, Any]) -> None:
    """Have the service say something else of what a query must be."""

    def answer(route: "Route") -> None:
        told = route.fetch().json()
        route.fulfill(json=told | {"query": told["query"] | changes})

    watched.page.route("**/v1/model", answer)


def test_pages_that_came_without_tls_say_so(watched: WatchedPage, service: RecordedService) -> None:
    watched.page.add_init_script("delete Object.getPrototypeOf(crypto).subtle")
    watched.page.goto(service.url)
    assert "HTTPS" in line(watched, "#unreachable")


def test_without_workers_the_page_encrypts_itself(
    watched: WatchedPage, service: RecordedService
) -> None:
    watched.page.route("**/page/worker.js", lambda route: route.fulfill(status=404))
    opened(watched, service)
    watched.choose(FILE)
    watched.page.click("#send")
    watched.page.wait_for_selector("#result:visible")


def test_a_new_picture_ends_the_wait_for_the_one_before(
    watched: WatchedPage, service: RecordedService
) -> None:
    opened(watched, service)
    held: list[Route] = []
    watched.page.route("**/v1/segment*", lambda route: held.append(route))
    watched.choose(FILE)
    watched.page.click("#send")
    watched.page.wait_for_selector("#send:disabled")
    watched.page.click("#samples button >> nth=2")
    watched.page.wait_for_selector("#send:enabled")
    assert len(held) == 1 and not watched.page.is_visible("#result")
    assert not watched.page.is_visible("#send-error")
