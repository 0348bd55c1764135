"""What programs write, kept: cleaned, bounded, and out of the reach of the users they run as.

A program writes into a pipe. Who reads it holds the log's folder by descriptor, and that folder is
its own: a link in the place of a log is never followed, by writing or by turning it over.
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
"""Size at which a log is begun anew; the one before is kept."""
MAX_LINE = 2000
"""Characters of a line that are kept."""
LINES_KEPT = 1000
"""Lines of a program that are remembered for a person's explanation."""
READ_BYTES = 2**20
"""Most that is read of a pipe at a time: who writes more waits."""
ESCAPE_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]P^_X][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, DCS, PM, APC, SOS: titles, links
    r"|\x1b[ -/]*[0-~]"
)


def clean(line: str) -> str:
    r"""A line of somebody else's, fit for a terminal and for a file of lines.

    Escape sequences go; other characters that no person can see are written out; what is longer
    than `MAX_LINE` is cut.

    >>> clean("\x1b[91mERROR\x1b[0m of \x1b]0;a title\x07aachen\r\n\u202e")
    'ERROR of aachen\\r\\n\\u202e'
    """
    line = ESCAPE_SEQUENCES.sub("", line)[: MAX_LINE + 1]
    shown = "".join(c if c.isprintable() or c == "\t" else _written_out(c) for c in line)
    return shown if len(shown) <= MAX_LINE else f"{shown[:MAX_LINE]}..."


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Lines:
    """Bytes in pieces, whole lines out; of a line that is too long the rest is dropped."""

    def __init__(self) -> None:
        self._begun = b""
        self._cut = False

    def take(self, piece: bytes) -> list[str]:
        """The lines that end with this piece, cleaned."""
        *whole, rest = (self._begun + piece).split(b"\n")
        found = []
        for number, line in enumerate(whole):
            if not (number == 0 and self._cut):  # its begin was a line already
                found.append(self._decoded(line))
        if whole:
            self._cut = False
        self._begun = b"" if self._cut else rest
        if len(self._begun) > 4 * MAX_LINE:
            found += self.end()
            self._cut = True
        return found

    def end(self) -> list[str]:
        """What has begun and was not ended, as a line."""
        rest, self._begun = self._begun, b""
        return [self._decoded(rest)] if rest else []

    @staticmethod
    def _decoded(line: bytes) -> str:
        return clean(line.removesuffix(b"\r").decode("utf-8", "replace"))


class Log:
    """A log file of this process's own, and the one before it."""

    def __init__(self, path: Path) -> None:
        """Open its folder, which is made where it is missing.

        Raises:
            InputError: The folder is another user's, or others may write it or lead it elsewhere.
        """
        self._name = path.name
        self._folder = _own_folder(path.parent)
        self._file: int | None = None
        self._size = 0

    def write(self, lines: list[str]) -> None:
        """Append lines; a log that has become large is turned over first."""
        for line in lines:
            data = line.encode("utf-8", "replace") + b"\n"
            if self._file is not None and self._size + len(data) > LOG_BYTES:
                self._turn()
            if self._file is None:
                self._open()
            assert self._file is not None
            self._size += os.write(self._file, data)

    def close(self) -> None:
        """Close file and folder; the log is not to be used any more."""
        self._let_go()
        self._folder.close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(
            self._name, flags | os.O_NONBLOCK, 0o600, dir_fd=self._folder.descriptor
        )
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            self._let_go()
            raise InputError(f"{self._name}: expected a log file of its own there, got another")
        self._size = found.st_size

    def _turn(self) -> None:
        self._let_go()
        kept = f"{self._name}.1"
        here = self._folder.descriptor
        os.rename(self._name, kept, src_dir_fd=here, dst_dir_fd=here)

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None


class Output:
    """What a program writes from its start to its end."""

    def __init__(self, pipe: int, log: Log) -> None:
        self._pipe = pipe
        self._log = log
        self._lines = Lines()
        self.kept: deque[str] = deque(maxlen=LINES_KEPT)
        os.set_blocking(pipe, False)

    def read(self) -> list[str]:
        """The lines that have come since the last time; they are in the log now."""
        piece = self._next(READ_BYTES)
        return self._keep(self._lines.take(piece)) if piece else []

    def end(self) -> list[str]:
        """The last lines of a program that has ended."""
        return self.read() + self._keep(self._lines.end())

    def text(self) -> str:
        """The last lines that it wrote."""
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
