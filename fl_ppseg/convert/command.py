"""`python -m fl_ppseg.convert VERB`: a verb for each kind of download."""

import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console

from fl_ppseg.convert import camvid, labelme
from fl_ppseg.convert.folder import folder
from fl_ppseg.convert.masks import Colour
from fl_ppseg.convert.plan import Plan
from fl_ppseg.convert.scaling import Scaling
from fl_ppseg.convert.tree import convert, notes
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.system.command_line import Parser, count, image_size, log_to
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.places import check_apart
from fl_ppseg.system.verbs import Verb, dispatch
from fl_ppseg.system.wording import counted

MODULE: Final = "fl_ppseg.convert"
DESCRIPTION: Final = """\
Make a tree in Cityscapes layout, which simulate, vault and evaluate read, out of a data set as it
is downloaded. Val places share no drive and no place with training. The tree is whole or absent.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status.

    Raises:
        InputError: Options or files do not fit; nothing is made then.
    """
    log_to(None)
    return dispatch(MODULE, DESCRIPTION, VERBS, argv)


def _camvid(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="DIR",
        help="holds train, trainannot, val, valannot, test, testannot",
    )
    _add_val(parser, "drives that are scored, whole, and never trained on", camvid.VAL_DRIVES)
    add(
        "--runs",
        type=count,
        default=camvid.NUM_RUNS,
        metavar="N",
        help=f"places that train, runs of consecutive frames (default {camvid.NUM_RUNS})",
    )
    options = _parsed(parser, argv)
    plan = camvid.camvid(options.source, options.val, options.runs)
    return _made(plan, [options.source], options)


def _labelme(parser: Parser, argv: Sequence[str]) -> int:
    parser.add_argument(
        "source", type=Path, metavar="DIR", help="the repository: holds images and labels"
    )
    _add_val(parser, "places that are scored and never trained on", labelme.VAL_PLACES)
    options = _parsed(parser, argv)
    return _made(labelme.labelme_facade(options.source, options.val), [options.source], options)


def _folder(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="photographs, PNG or JPEG")
    add("--masks", type=Path, required=True, metavar="DIR", help="a PNG for each photograph")
    add(
        "--mask-suffix",
        default="",
        metavar="TEXT",
        help="what the name of a mask has behind its photograph's, e.g. _L",
    )
    add(
        "--classes",
        required=True,
        metavar="TABLE",
        help="name of a built-in class table, or a YAML file like those",
    )
    add(
        "--masks-hold",
        required=True,
        choices=["ids", "colours"],
        help="what masks hold: label_ids of the table, or its colours",
    )
    add(
        "--ignore",
        type=_colour,
        nargs="+",
        default=[],
        metavar="RRGGBB",
        help="colours of masks that are of no class, e.g. 000000",
    )
    add(
        "--place",
        required=True,
        metavar="REGEX",
        help="regular expression that finds the place in a photograph's name (with the folders "
        "below --images, without suffix), by a group: '^(?P<place>[^_/]+)_'; a group `area` may "
        "find the drive or town that several places share",
    )
    _add_val(parser, "places that are scored and never trained on", None)
    add("--notice", metavar="TEXT", help="a line on source and licence for the tree's README")
    given = _parsed(parser, argv)
    plan = folder(
        given.images,
        given.masks,
        given.classes,
        given.masks_hold,
        given.place,
        given.val,
        suffix=given.mask_suffix,
        ignored=given.ignore,
        notice=given.notice,
    )
    return _made(plan, [given.images, given.masks], given)


VERBS: Final = {
    "camvid": Verb("CamVid as the SegNet tutorial has it, by drive", _camvid),
    "labelme-facade": Verb("LabelMeFacade, by place", _labelme),
    "folder": Verb("photographs and masks in two folders, places by a pattern", _folder),
}


def _add_val(parser: Parser, what: str, default: Sequence[str] | None) -> None:
    known = f" (default {' '.join(default)})" if default else ""
    parser.add_argument(
        "--val",
        nargs="+",
        required=default is None,
        default=default,
        metavar="NAME",
        help=what + known,
    )


def _parsed(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Add the options of all verbs, and parse."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--longest-side",
        type=count,
        metavar="N",
        help="scale larger pictures down to N pixels, in their proportions",
    )
    size.add_argument(
        "--size",
        type=image_size,
        metavar="HxW",
        help="scale every picture to HxW (neither: as they are)",
    )
    add("--workers", type=count, default=available_cpus(), metavar="N", help="threads")
    add("--quiet", action="store_true", help="no progress bar, no summary")
    return parser.parse_args(argv)


def _made(plan: Plan, sources: Sequence[Path], options: Namespace) -> int:
    for source in sources:
        check_apart(source, options.out, "--out", "what is converted stays as it is")
    scaling = Scaling(options.longest_side, options.size)
    console = Console(stderr=True)
    with StepProgress(console, options.quiet or not console.is_terminal) as bar:
        show = partial(bar.update, "converting photographs")
        found = convert(plan, options.out, scaling, options.workers, show)
    if not options.quiet:
        lines = [_summary(plan, options.out), *notes(plan, found)]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _summary(plan: Plan, out: Path) -> str:
    parts = [
        f"{counted(len(items), 'photograph')} of {counted(len({i.place for i in items}), 'place')} "
        f"in {split}"
        for split, items in plan.splits.items()
    ]
    classes = out / plan.classes if plan.table is not None else plan.classes
    return f"{', '.join(parts)}: {out} (--set data.classes={classes})"


def _colour(text: str) -> Colour:
    if not re.fullmatch("[0-9a-fA-F]{6}", text):
        raise ArgumentTypeError(f"{text!a} is not a colour; expected RRGGBB, e.g. 8040ff")
    red, green, blue = bytes.fromhex(text)
    return red, green, blue
