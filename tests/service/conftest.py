"""What the tests of the page share: a browser for each file.

It ends with the file: while Playwright runs, its event loop is that of the whole process, and what
a browser takes would count as memory of the tests that come after.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as found:
        yield found
