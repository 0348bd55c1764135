"""`python -m fl_ppseg.audit --identity`: it reads no config, no run and no vault.

The heavy imports are in `audit_identity`, so that help is fast.
"""

import argparse
import re
import sys
import time
from pathlib import Path
from typing import Final, get_args

from fl_ppseg.config.run_layout import IDENTITY
from fl_ppseg.config.sections import CanonicalForm
from fl_ppseg.system.command_line import Parser, names
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable

OPTIONS: Final = ("sizes", "blocks", "forms")
OF_AN_IDENTITY_AUDIT: Final = frozenset({*OPTIONS, "identity", "out", "quick", "quiet"})
SIZES: Final = "512x1024"
BLOCKS: Final = "8,16"
FORMS: Final[tuple[str, ...]] = get_args(CanonicalForm)
SIDES: Final = (16, 2048)
"""Least and most rows of a frame."""
STRIDE: Final = 4
"""Sides of blocks are multiples of this."""
MOST_BLOCK: Final = 32


def add_identity(parser: Parser) -> None:
    """Add `--identity` and its own options."""
    add = parser.add_argument
    add(
        "--identity",
        action="store_true",
        help="in place of the arms: how many drawn number plates and faces can be read",
    )
    add("--sizes", metavar="HxW,...", help=f"with --identity: sizes of frames (default: {SIZES})")
    add("--blocks", metavar="M,...", help=f"with --identity: sides of blocks (default: {BLOCKS})")
    add("--forms", metavar="A,B,...", help="with --identity: canonical forms (default: all)")


def refuse_without_identity(options: argparse.Namespace) -> None:
    """Refuse what belongs to an audit of identity.

    Raises:
        InputError: With the option to leave out.
    """
    for name in OPTIONS:
        if getattr(options, name) is not None:
            raise InputError(f"--{name} belongs to --identity; add --identity, or leave it out")


def audit_identity(options: argparse.Namespace) -> int:
    """Count what can be read, write identity.json and identity.html, print the table.

    Raises:
        InputError: An option of another audit, or one that does not fit.
    """
    for name, value in vars(options).items():
        if value and name not in OF_AN_IDENTITY_AUDIT:
            shown = "a run" if name == "run" else f"--{name.replace('_', '-')}"
            raise InputError(f"--identity draws its own scenes and plates; leave out {shown}")
    sizes = [_size(text) for text in names(options.sizes or SIZES)]
    blocks = [_block(text) for text in names(options.blocks or BLOCKS)]
    forms = [_form(text) for text in (FORMS if options.forms is None else names(options.forms))]
    for size in sizes:
        for block in blocks:
            if any(side % block for side in size):
                raise InputError(f"blocks of {block} do not fit frames of {size[0]}x{size[1]}")
    usual = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-identity"
    out = Path(options.out or usual).absolute()
    if (out / IDENTITY).exists():
        raise InputError(f"{out}: holds an audit of identity already; choose another --out")
    check_writable(out)

    from rich.console import Console

    from fl_ppseg.audit.identity.effort import IdentityEffort
    from fl_ppseg.audit.identity.page import print_identity, write_identity
    from fl_ppseg.audit.identity.procedure import identify
    from fl_ppseg.progress.steps import steps

    effort = IdentityEffort.quick() if options.quick else IdentityEffort()
    with steps(sys.stderr, options.quiet) as progress:
        table = identify(sizes, blocks, forms, effort, 0, progress)
    out.mkdir(parents=True, exist_ok=True)
    page, console = write_identity(out, table), Console()
    print_identity(console, table)
    console.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text)
    low, high = SIDES
    if not found or int(found[2]) != 2 * int(found[1]) or not low <= int(found[1]) <= high:
        raise InputError(
            f"--sizes: {text!a} is not a frame; expected HxW with W = 2 H, as 512x1024, of {low} "
            f"to {high} rows"
        )
    return int(found[1]), int(found[2])


def _block(text: str) -> int:
    is_number = re.fullmatch("[1-9][0-9]?", text)
    if not is_number or int(text) % STRIDE or int(text) > MOST_BLOCK:
        raise InputError(
            f"--blocks: {text!a} is not a side; expected multiples of {STRIDE} up to {MOST_BLOCK}"
        )
    return int(text)


def _form(text: str) -> str:
    if text not in FORMS:
        raise InputError(f"--forms: {text!a} is no canonical form; expected some of {FORMS}")
    return text
