"""What the tests of the page share: one browser."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    with chromium() as found:
        yield found
