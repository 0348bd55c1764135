"""The files of the page, read once at the start: nothing else of the disk can be asked for."""

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple

TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".jpg": "image/jpeg",
    ".ico": "image/x-icon",
}
"""What is served, by the end of its name."""


class PageFile(NamedTuple):
    """A file of the page."""

    content: bytes
    media_type: str


def page_files(folder: Traversable | None = None) -> dict[str, PageFile]:
    """The files of a folder and of those in it, by their path in it; of the package's own page."""
    root = resources.files("fl_ppseg.service") / "page" if folder is None else folder
    return dict(_found(root, "")) if root.is_dir() else {}


def index_of(files: Mapping[str, PageFile]) -> str | None:
    """Name of the page itself: the HTML file that lies in no folder."""
    return next((name for name in files if name.endswith(".html") and "/" not in name), None)


def _found(folder: Traversable, before: str) -> list[tuple[str, PageFile]]:
    files = []
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        name = f"{before}{each.name}"
        end = f".{each.name.rpartition('.')[2]}"
        if each.is_dir():
            files += _found(each, f"{name}/")
        elif end in TYPES:
            files.append((name, PageFile(each.read_bytes(), TYPES[end])))
    return files
