"""Cache of earlier scans by content: unchanged label maps are not decoded again.

One private file in the user's cache per class table: by content it holds the pixels of each
labelId. It names no file, and a damaged one is ignored.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fl_ppseg.data.classes import ClassTable
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import make_private_folder, user_folder, write_atomically

logger = logging.getLogger(__name__)

MAX_ENTRIES: Final = 20_000
"""Most entries of a file; the oldest are removed. Cityscapes has 3,475 scenes."""
MAX_BYTES: Final = 2**25
_Content = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**40)]
_LabelId = Annotated[int, Field(ge=0, le=255)]


class SceneScan(NamedTuple):
    """The result of scanning the two files of a scene."""

    content: str
    """Digest of both."""
    size: tuple[int, int]
    """(height, width) of the label map."""
    is_turned: bool
    """Whether an EXIF orientation turns the image."""
    label_ids: dict[int, int]
    """LabelId -> pixels."""


_Entry = tuple[_Count, _Count, bool, dict[_LabelId, _Count]]
_ENTRIES: Final = TypeAdapter(dict[_Content, _Entry], config=ConfigDict(allow_inf_nan=False))


class ScanCache:
    """Scans by content; see the module's docstring."""

    def __init__(self, path: Path | None) -> None:
        """Read a file, if there is a whole one.

        Args:
            path: Of the file; none: nothing is known and nothing kept.
        """
        self._path = path
        self._looks = {} if path is None else _read(path)

    @classmethod
    def of_table(cls, classes: ClassTable) -> Self:
        """The user's, for label maps that are read with a class table."""
        table = classes.label_to_train.tobytes() + classes.colours.tobytes()
        name = f"{hashlib.sha256(table).hexdigest()[:32]}.json"
        try:
            return cls(user_folder("surveys", "XDG_CACHE_HOME", ".cache") / name)
        except RuntimeError:  # a user without a home
            return cls(None)

    def find(self, content: str) -> SceneScan | None:
        """What a content holds, where it is known."""
        return self._looks.get(content)

    def save(self, looks: Iterable[SceneScan]) -> None:
        """Keep what was found, where the user's cache can be written."""
        new = {look.content: look for look in looks}
        if self._path is None or new.keys() <= self._looks.keys():
            return
        old = {content: look for content, look in self._looks.items() if content not in new}
        kept = list((old | new).values())[-MAX_ENTRIES:]
        self._looks = {look.content: look for look in kept}
        document = {k: [*v.size, v.is_turned, v.label_ids] for k, v in self._looks.items()}
        with suppress(OSError, InputError):  # a cache is a convenience
            make_private_folder(self._path.parent)
            write_atomically(self._path, json.dumps(document), mode=0o600, lasting=False)


def _read(path: Path) -> dict[str, SceneScan]:
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        found = _ENTRIES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.info("%s: not used, %s", path, type(error).__name__)
        return {}
    return {
        content: SceneScan(content, (height, width), is_turned, label_ids)
        for content, (height, width, is_turned, label_ids) in found.items()
    }
