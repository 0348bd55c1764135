"""`python -m fl_ppseg.synthesize`: write a procedural street-scene data set."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.system.command_line import Parser, image_size, run
from fl_ppseg.system.wording import counted


def _parser() -> Parser:
    parser = Parser(
        "fl_ppseg.synthesize",
        "Write a procedural street-scene data set in Cityscapes layout: 18 training cities and 3 "
        "val cities with their true names and proportions, all 19 classes.",
        shows_defaults=True,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    add("--num-train", type=int, default=600, metavar="N", help="training scenes in all cities")
    add("--num-val", type=int, default=60, metavar="N", help="validation scenes in all cities")
    add("--size", type=image_size, default="128x256", metavar="HxW", help="up to 1024x2048")
    add("--seed", type=int, default=0, metavar="N", help="another seed, other scenes")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    add("--quiet", action="store_true", help="no progress bar, no summary")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(argv)
    # Here, not above: spawned workers import this module again and need no terminal.
    from rich.console import Console

    from fl_ppseg.progress.steps import StepProgress

    console = Console(stderr=True)
    with StepProgress(console, options.quiet or not console.is_terminal) as bar:
        synthesize(
            options.out,
            num_train=options.num_train,
            num_val=options.num_val,
            size=options.size,
            seed=options.seed,
            workers=options.workers,
            progress=partial(bar.update, "drawing street scenes"),
        )
    if not options.quiet:
        sys.stdout.write(
            f"{counted(options.num_train + options.num_val, 'scene')} in {options.out}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
