"""The node's own log: details that its error replies omit, rotated, with untrusted text sanitised.

    <state>/node.log, node.log.1 ... node.log.3

Names, reasons and errors in it may come from the coordinator. Each message is one line without
control characters; the lines of a traceback are indented, so that none can look like a message.
"""

import logging
import logging.handlers
import os
from io import TextIOWrapper
from pathlib import Path
from typing import Final

LOG: Final = "node.log"
MAX_BYTES: Final = 4 * 2**20
NUM_OLD: Final = 3
MAX_MESSAGE: Final = 1000
MAX_TRACEBACK: Final = 20_000


class PlainFormatter(logging.Formatter):
    """Formats records as lines without control characters, which cannot imitate other records."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the indented traceback if there is one."""
        head = self.formatTime(record)
        text = f"{head} {record.levelname} {record.name}: {sanitise(record.getMessage())}"
        if record.exc_info:
            traceback = self.formatException(record.exc_info)[-MAX_TRACEBACK:]
            text += "".join(f"\n    | {sanitise(line)}" for line in traceback.split("\n"))
        return text


def sanitise(text: str) -> str:
    r"""One line of at most `MAX_MESSAGE` printable characters, with the number of those left out.

    >>> sanitise("a\n2026-01-01 INFO all is well\x1b[2J")
    'a\\n2026-01-01 INFO all is well\\x1b[2J'
    """
    more = f" ... ({len(text) - MAX_MESSAGE} more)" if len(text) > MAX_MESSAGE else ""
    shown = (c if c.isprintable() else _escaped(c) for c in text[:MAX_MESSAGE])
    return "".join(shown) + more


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class _OwnFile(logging.handlers.RotatingFileHandler):
    """A rotating file that is opened at the first record, with mode 0600, never through a link."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


_current: list[Path] = []


def set_up_log(state: Path) -> None:
    """Send the log records of the node's packages to the log in this state folder."""
    if _current == [state]:
        return
    _current[:] = [state]
    handler = _OwnFile(state / LOG, maxBytes=MAX_BYTES, backupCount=NUM_OLD, delay=True)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PlainFormatter())
    node = logging.getLogger("clients")
    for earlier in node.handlers:  # of another node in this process
        earlier.close()
    node.handlers = [handler]
    node.propagate = False
