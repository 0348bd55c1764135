"""Shared by all commands: common options and exit statuses.

Exit status 0 for success, 2 for bad arguments, config or data, 1 for a failed or interrupted run;
failures print one line, never a traceback (`FL_PPSEG_TRACEBACK=1` shows it to developers).
"""

import argparse
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fl_ppseg.system.errors import DISK_FULL, InputError, RunError, describe, is_out_of_memory
from fl_ppseg.system.version import VERSION

LOGGERS = ("fl_ppseg", "strategies", "flwr")
"""Whose log lines a command directs; those of clients stay on the owners' side."""
PROGRAM: Final = "fl-ppseg"
"""The distribution, and its console script, whose verbs are the commands."""
ASK_FOR_PARSER: Final[Sequence[str]] = ("parser",)
"""This very tuple in place of arguments: the command hands out its parser and does nothing."""
RENAMED: Final = {"--cities": "--train-clients", "--val-cities": "--val-clients"}
"""Options of earlier versions, and what they are called now."""
GRACE_SECONDS = 3.0
"""How long threads may take to end after an interruption."""


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command's `main` and map its outcome to an exit status.

    Args:
        main: The command; returns its exit status.
        argv: Arguments without the program's name; None reads `sys.argv`.

    Returns:
        0, 1 or 2 as described in the module's docstring.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # our own errors say it
    umask = os.umask(0o022)
    os.umask(umask | 0o022)  # nothing that is made is everybody's to change, whatever was set
    try:
        return main(argv)
    except (InputError, RunError, OSError) as error:
        if os.environ.get("FL_PPSEG_TRACEBACK"):
            raise
        is_failure = isinstance(error, RunError) or getattr(error, "errno", None) in DISK_FULL
        return _say(describe(error), 1 if is_failure else 2)
    except (MemoryError, RuntimeError) as error:
        if os.environ.get("FL_PPSEG_TRACEBACK") or not is_out_of_memory(error):
            raise
        return _say(describe(error), 1)
    except KeyboardInterrupt as error:
        kept = str(error) or "finished work is kept, half-done work removed"
        status = _say(f"interrupted; {kept}", 1)
        _leave_hanging_threads(status)
        return status
    finally:
        os.umask(umask)


def _leave_hanging_threads(status: int) -> None:
    """End the process if a thread outlives its work: Python would wait for it indefinitely.

    Threads of Flower's simulation stay in `ray.get` when Ray is shut down under them.
    """
    end = time.monotonic() + GRACE_SECONDS
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    for thread in [t for t in others if not t.daemon]:
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _say(line: str, status: int) -> int:
    print(f"error: {line}", file=sys.stderr)
    return status


class ParserFoundError(Exception):
    """Carries the parser of a command that was asked for it."""

    def __init__(self, parser: "Parser") -> None:
        super().__init__(parser.prog)
        self.parser = parser


class _WithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows what an option is when it is left out, where it is anything then."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with the way out, exit status 2."""

    def __init__(self, module: str, description: str, *, shows_defaults: bool = False) -> None:
        super().__init__(
            prog=_typed(module),
            description=description,
            formatter_class=_WithDefaults if shows_defaults else argparse.HelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse the arguments, or hand out the parser where `ASK_FOR_PARSER` stands for them.

        Raises:
            ParserFoundError: The arguments are `ASK_FOR_PARSER`.
            InputError: An option has another name, or the arguments are wrong otherwise.
        """
        if args is ASK_FOR_PARSER:
            raise ParserFoundError(self)
        for word in sys.argv[1:] if args is None else args:
            option, _, _ = word.partition("=")
            if RENAMED.get(option) in self._option_string_actions:
                self.error(f"{option} is now {RENAMED[option]}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of printing the whole usage."""
        raise InputError(f"{message} (see {self.prog} -h)")


def _typed(module: str) -> str:
    """How a command was called, its verb included: by the console script, or by its module."""
    if Path(sys.argv[0]).stem != PROGRAM:
        return f"python -m {module}"
    name, *verb = module.split()
    return " ".join([PROGRAM, *name.split(".")[1:], *verb])


def add_set(parser: argparse.ArgumentParser) -> None:
    """The option that changes a setting of the config."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set dotted.key=value"
    )


def names(text: str) -> tuple[str, ...]:
    """The names in a list with commas, e.g. of `--arms`.

    >>> names("plain, per-image")
    ('plain', 'per-image')
    """
    return tuple(name.strip() for name in text.split(","))


def count(text: str) -> int:
    """Parse a number of things, of which there is one at least."""
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text!a} is not a number; expected 1 or more")
    return int(text)


def usual_tree() -> Path | None:
    """The tree of images that stands in for `--data-root`; None: the user has set none."""
    tree = os.environ.get("CITYSCAPES_DATASET")
    return Path(tree).absolute() if tree else None


def tree_of(given: Path | None) -> Path:
    """The tree of images that a command reads.

    Args:
        given: What `--data-root` says.

    Raises:
        InputError: There is none.
    """
    tree = given or usual_tree()
    if tree is None:
        raise InputError("give --data-root, or set CITYSCAPES_DATASET to a Cityscapes tree")
    return tree


def image_size(text: str) -> tuple[int, int]:
    """Parse `HEIGHTxWIDTH`.

    >>> image_size("128x256")
    (128, 256)
    """
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; expected HEIGHTxWIDTH, e.g. 128x256"
        )
    return int(height), int(width)


def log_to(path: os.PathLike[str] | None, quiet: bool = False) -> None:
    """Send our and Flower's log lines to a file; without one, warnings to the terminal."""
    handlers: list[logging.Handler] = []
    if path is not None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    else:
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.ERROR if quiet else logging.WARNING)
        handlers.append(terminal)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        for old in logger.handlers:
            old.close()
        logger.handlers = handlers
        logger.propagate = False
