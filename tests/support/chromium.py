"""A headless Chromium of the system, driven by Playwright; tests that need it skip without it."""

import base64
import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(
    PROGRAM is None or importlib.util.find_spec("playwright") is None,
    reason="no Chromium on this machine, or no Playwright: the page is not looked at in a browser",
)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--renderer-process-limit=1"]
"""For containers; the pages that are opened are our own."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


_BODY = """
async (values) => {
  const unpacked = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const packed = (value) => value instanceof Uint8Array
    ? { bytes: btoa(Array.from(value, (byte) => String.fromCharCode(byte)).join("")) }
    : Array.isArray(value) ? value.map(packed) : value;
  values = values.map((value) => value?.bytes === undefined ? value : unpacked(value.bytes));
  return packed(await (async () => { BODY })());
}
"""


def in_page(page: Any, body: str, *values: object) -> Any:
    """What the body of an async function of `values` returns, run in a page.

    Bytes travel as base64, for lists of numbers take a hundred times as long.
    """
    given = [
        {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for value in values
    ]
    return _unpacked(page.evaluate(_BODY.replace("BODY", body), given))


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"bytes"}:
        return base64.b64decode(value["bytes"])
    return [_unpacked(each) for each in value] if isinstance(value, list) else value
