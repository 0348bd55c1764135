"""A page in a browser, of which everything is noted that it must not do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

KEY = bytes(range(100, 132))
"""What the browser is made to draw, where a test has to know the key."""
_FIXED_KEYS = f"""
  SubtleCrypto.prototype.generateKey = function (algorithm, extractable, usages) {{
    (window.asked ??= []).push([algorithm.name, algorithm.length, extractable, usages.join()]);
    return this.importKey("raw", Uint8Array.from({list(KEY)}), algorithm, extractable, usages);
  }};
"""
_VIOLATIONS = """
  document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
    console.error(`policy: ${violatedDirective} ${blockedURI}`);
  });
"""


@dataclass
class WatchedPage:
    """A page, what it asked for, and what went wrong in it."""

    page: "Page"
    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def choose(self, file: dict[str, Any]) -> None:
        """Choose a picture as a person does, and wait for its ciphertext."""
        self.page.set_input_files("#file", [file])
        self.page.wait_for_selector("#key:visible")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


@contextmanager
def watched_page(
    browser: "Browser", url: str | None, *, fixed_keys: bool = False, **options: Any
) -> Iterator[WatchedPage]:
    """A page in a context of its own, which has nothing stored, at an address."""
    context = browser.new_context(**{"reduced_motion": "reduce"} | options)
    context.set_default_timeout(60_000)
    context.add_init_script(_VIOLATIONS + (_FIXED_KEYS if fixed_keys else ""))
    found = WatchedPage(context.new_page())
    context.on("request", lambda request: found.urls.append(request.url))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on(
        "console",
        lambda line: found.complaints.append(line.text) if line.type in ("error", "warning") else 0,
    )
    try:
        if url is not None:
            found.page.goto(url)
            found.page.wait_for_selector("#samples button:enabled")
        yield found
    finally:
        context.close()
