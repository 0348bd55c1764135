"""A last line with a hash, which shows whether a YAML file was changed.

A run is resumed with the config in its folder. A flipped bit or an edited number there would train
something else under the run's name; so what this program writes ends with the hash of the lines
above. A file without that line is a person's own, and read as it is.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from fl_ppseg.config.documents import parse_yaml, read_text
from fl_ppseg.system.errors import InputError

_WORDS: Final = "sha256 of the lines above"
_CHECKSUM: Final = re.compile(rf"^# {_WORDS}: ([0-9a-f]{{64}})\n?\Z", re.MULTILINE)
_LENGTH: Final = len(f"# {_WORDS}: ") + 64


def with_checksum(text: str) -> str:
    """YAML with the hash of its lines as a comment under them."""
    return f"{text}# {_WORDS}: {_hash(text)}\n"


def read_checked(path: Path) -> object:
    """Parse a YAML file, and check that it is as this program wrote it, if it did.

    Raises:
        InputError: As `read_yaml`, or the file was changed since.
    """
    text = read_text(path)
    found = _CHECKSUM.search(text)
    if found is None and _had_checksum(text):
        raise InputError(f"{path}: the last line, the hash of the lines above, is damaged")
    if found is not None and found[1] != _hash(text[: found.start()]):
        raise InputError(
            f"{path}: was changed since it was written (its hash differs); restore it, or copy "
            "it and remove its last line to start another run with it"
        )
    return parse_yaml(text, str(path))


def _had_checksum(text: str) -> bool:
    """Whether the last line is a checksum but for a damaged character or two."""
    last = text.rstrip().rpartition("\n")[2]
    is_long = abs(len(last) - _LENGTH) <= 1 and re.search("[0-9a-f]{64}", last) is not None
    return is_long or _WORDS in last


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
