"""Logs of supervised programs: sanitised, bounded, and not writable by the users they run as.

A program writes into a pipe. The reader holds the log's folder, which is its own, by descriptor: a
link in the place of a log is never followed, neither by writing nor by rotation.
"""

import os
import re
import stat
from collections import deque
from pathlib import Path

from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import user_name

LOG_BYTES = 20 * 2**20
"""Size at which a log is rotated; one earlier log is kept."""
MAX_LINE = 2000
"""Longest line that is kept, in characters."""
LINES_KEPT = 1000
"""Last lines of a program that are kept to explain why it ended."""
READ_BYTES = 2**20
"""Most bytes that are read from a pipe at a time: a program that writes more waits."""
ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, PM, APC, SOS: titles, links
    r"|\x1b[ -/]*[0-~]"
)


def sanitise(line: str) -> str:
    r"""Sanitise a line of a program for a terminal and for a file of lines.

    Escape sequences are removed, other unprintable characters escaped, and lines longer than
    `MAX_LINE` cut.

    >>> sanitise("\x1b[91mERROR\x1b[0m of \x1b]0;a title\x07aachen\r\n\u202e")
    'ERROR of aachen\\r\\n\\u202e'
    """
    line = ESCAPE_SEQUENCES.sub("", line)[: MAX_LINE + 1]
    shown = "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in line)
    return shown if len(shown) <= MAX_LINE else f"{shown[:MAX_LINE]}..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Lines:
    """Splits pieces of bytes into lines; the rest of a line that is too long is dropped."""

    def __init__(self) -> None:
        self._partial = b""
        self._cut = False

    def add(self, piece: bytes) -> list[str]:
        """Add a piece; returns the lines that it completes, sanitised."""
        *whole, rest = (self._partial + piece).split(b"\n")
        found = []
        for number, line in enumerate(whole):
            if not (number == 0 and self._cut):  # its start was returned already
                found.append(self._decoded(line))
        if whole:
            self._cut = False
        self._partial = b"" if self._cut else rest
        if len(self._partial) > 4 * MAX_LINE:
            found += self.end()
            self._cut = True
        return found

    def end(self) -> list[str]:
        """Return an unfinished last line."""
        rest, self._partial = self._partial, b""
        return [self._decoded(rest)] if rest else []

    @staticmethod
    def _decoded(line: bytes) -> str:
        return sanitise(line.removesuffix(b"\r").decode("utf-8", "replace"))


class Log:
    """A log file of this process, and one earlier log."""

    def __init__(self, path: Path) -> None:
        """Open its folder; create it if it is missing.

        Raises:
            InputError: The folder belongs to another user, or others may write or redirect it.
        """
        self._name = path.name
        self._folder = _own_folder(path.parent)
        self._file: int | None = None
        self._size = 0

    def write(self, lines: list[str]) -> None:
        """Append lines; a log that has become too large is rotated first."""
        for line in lines:
            data = line.encode("utf-8", "replace") + b"\n"
            if self._file is not None and self._size + len(data) > LOG_BYTES:
                self._rotate()
            if self._file is None:
                self._open()
            assert self._file is not None
            self._size += os.write(self._file, data)

    def close(self) -> None:
        """Close file and folder; the log cannot be used after it."""
        self._close_file()
        self._folder.close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(
            self._name, flags | os.O_NONBLOCK, 0o600, dir_fd=self._folder.descriptor
        )
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            self._close_file()
            raise InputError(
                f"{self._name}: expected a regular log file without links; remove what is there"
            )
        self._size = found.st_size

    def _rotate(self) -> None:
        self._close_file()
        kept = f"{self._name}.1"
        here = self._folder.descriptor
        os.rename(self._name, kept, src_dir_fd=here, dst_dir_fd=here)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


class Output:
    """The output of a program from its start to its end."""

    def __init__(self, pipe: int, log: Log) -> None:
        self._pipe = pipe
        self._log = log
        self._lines = Lines()
        self.kept: deque[str] = deque(maxlen=LINES_KEPT)
        os.set_blocking(pipe, False)

    def read(self) -> list[str]:
        """Read the new lines and write them to the log."""
        piece = self._next(READ_BYTES)
        return self._keep(self._lines.add(piece)) if piece else []

    def end(self) -> list[str]:
        """Read and log the last lines of a program that has ended."""
        return self.read() + self._keep(self._lines.end())

    def text(self) -> str:
        """Its last lines, joined."""
        return "\n".join(self.kept)

    def _keep(self, lines: list[str]) -> list[str]:
        self.kept.extend(lines)
        self._log.write(lines)
        return lines

    def _next(self, most: int) -> bytes:
        pieces: list[bytes] = []
        try:
            while most > 0 and (piece := os.read(self._pipe, min(most, 2**16))):
                pieces.append(piece)
                most -= len(piece)
        except BlockingIOError:
            pass
        return b"".join(pieces)


def _own_folder(path: Path) -> Directory:
    folder = Directory.open(path, make=0o700)
    found = os.fstat(folder.descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder.close()
        raise InputError(
            f"{path}: expected a folder for logs that belongs to {user_name(os.geteuid())} alone, "
            f"got one of {user_name(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):04o}"
        )
    return folder
