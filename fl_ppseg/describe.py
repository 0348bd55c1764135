"""`python -m fl_ppseg.describe arms|config|ciphers`: what there is to choose from, in words.

On a terminal the words stand below each row; into a pipe they stand behind it, a line for each row,
to be searched; `--json` prints a list of objects.
"""

import inspect
import json
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fl_ppseg.config.cipher_versions import VERSIONS
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.reference import Setting, settings
from fl_ppseg.system.command_line import Parser, run
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.verbs import Verb, dispatch

DESCRIPTION: Final = "List what there is to choose from, in words."
ARM_COLUMNS: Final = ("id", "training", "key_mode", "cipher", "embedding", "note")
"""Of an arm's settings, those that a table has room for; `--json` has all."""
INDENT: Final[Mapping[str, Any]] = {"initial_indent": "    ", "subsequent_indent": "    "}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status.

    Raises:
        InputError: For options that do not fit.
    """
    return dispatch("fl_ppseg.describe", DESCRIPTION, VERBS, argv)


def _arms(parser: Parser, argv: Sequence[str]) -> int:
    is_json = _options(parser, argv).json
    arms = [{"id": name} | arm.model_dump(mode="json") for name, arm in builtin_arms().items()]
    return _show(arms, None if is_json else ARM_COLUMNS)


def _config(parser: Parser, argv: Sequence[str]) -> int:
    parser.add_argument("begin", nargs="?", default="", help="only keys that begin so: training")
    options = _options(parser, argv)
    found = [each._asdict() for each in settings() if each.key.startswith(options.begin)]
    if not found:
        raise InputError(f"no key of a config begins with {options.begin!a}; leave it out for all")
    return _show(found, None if options.json else Setting._fields)


def _ciphers(parser: Parser, argv: Sequence[str]) -> int:
    is_json = _options(parser, argv).json
    return _show(list(_about_ciphers()), None if is_json else ("name", "version", "effects", "doc"))


def _about_ciphers() -> Iterator[dict[str, Any]]:
    from fl_ppseg.crypto.ciphers.registry import CIPHERS  # loads SciPy

    for name, cipher in CIPHERS.items():
        doc, *_ = (inspect.getdoc(type(cipher)) or "").split("\n\n")
        yield {
            "name": name,
            "version": VERSIONS[name],
            "effects": [str(each.name).lower().replace("_", " ") for each in cipher.effects],
            "form": cipher.form,
            "doc": " ".join(doc.split()),
        }


VERBS: Final = {
    "arms": Verb("list the arms of configs/arms.yaml: keys, cipher, embedding", _arms),
    "config": Verb("list the settings of a config: type, default, bounds, meaning", _config),
    "ciphers": Verb("list the ciphers: what each does to a block, what survives", _ciphers),
}


def _options(parser: Parser, argv: Sequence[str]) -> Namespace:
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")
    return parser.parse_args(argv)


def _show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None) -> int:
    """Print rows as a table, the last of its columns in words; of no columns: all, as JSON."""
    if columns is None:
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    *names, words = columns
    cells = [[_cell(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)] if cells else []
    for row, cell in zip(rows, cells, strict=True):
        head = "  ".join(map(str.ljust, cell, widths))
        print(_below(head, row[words]) if sys.stdout.isatty() else f"{head}  {row[words]}")
    return 0


def _below(head: str, words: str) -> str:
    """A row for a terminal: its words below it, broken to the terminal's width."""
    width = shutil.get_terminal_size().columns
    return f"{head.rstrip()}\n{textwrap.fill(words, width, **INDENT)}"


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value in (None, "") else str(value)


if __name__ == "__main__":
    raise SystemExit(run(main))
