"""Photographs and masks in two folders: classes by a table, places by a pattern of their names."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

from fl_ppseg.config.documents import read_text
from fl_ppseg.convert.listing import MASKS, PHOTOGRAPHS, paired, pictures
from fl_ppseg.convert.masks import Coding, Colour, table_colours
from fl_ppseg.convert.plan import Item, Plan, chosen, divide
from fl_ppseg.data.classes import IGNORE_INDEX, ClassTable, built_in_tables, load_class_table
from fl_ppseg.data.tree_layout import bounded, counted
from fl_ppseg.system.errors import InputError

Kind = Literal["ids", "colours"]
OWN_TABLE: Final = "classes.yaml"
MAX_PATTERN: Final = 1_000
MAX_NOTICE: Final = 1_000
NO_NOTICE: Final = "Source and licence: not given (--notice)."


def folder(
    images: Path,
    masks: Path,
    classes: str,
    kind: Kind,
    pattern: str,
    val: Sequence[str],
    *,
    suffix: str = "",
    ignored: Sequence[Colour] = (),
    notice: str | None = None,
) -> Plan:
    """The tree of two folders, which may have subfolders.

    Args:
        images: Photographs.
        masks: Masks, named as their photographs are.
        classes: Name of a built-in class table, or path of a YAML file.
        kind: Whether masks hold labelIds of the table or its colours.
        pattern: Regular expression that is searched in the name of each photograph (its path
            relative to `images`, without suffix), with a group `place` and optionally `area`.
        val: Places that are scored and never trained on.
        suffix: What follows the photograph's name in that of its mask.
        ignored: Colours of no class.
        notice: A line on source and licence.

    Raises:
        InputError: Options contradict each other, or names do not fit.
    """
    if ignored and kind == "ids":
        raise InputError("--ignore names colours, but --masks-hold ids; a labelId that no class of "
                         "the table lists is of no class anyway")  # fmt: skip
    expression = _compiled(pattern)
    table = load_class_table(classes)
    pairs = paired(pictures(images, PHOTOGRAPHS), pictures(masks, MASKS), suffix)
    items = _items(pairs, expression)
    scored = chosen(val, {item.place for item in items}, "place")
    is_built_in = classes in built_in_tables()
    return Plan(
        source="Photographs and masks of two folders",
        notice=(_line(notice) if notice else NO_NOTICE,),
        classes=classes if is_built_in else OWN_TABLE,
        table=None if is_built_in else read_text(Path(classes)).encode(),
        coding=_coding(table, kind, ignored),
        splits=divide(items, lambda item: item.place in scored),
    )


def _coding(table: ClassTable, kind: Kind, ignored: Iterable[Colour]) -> Coding:
    if kind == "colours":
        return Coding.of_colours(table_colours(table, ignored), table)
    return Coding.of_ids({label_id: label_id for label_id in range(IGNORE_INDEX + 1)}, table, table)


def _items(pairs: dict[str, tuple[Path, Path]], pattern: re.Pattern[str]) -> list[Item]:
    """Items of the pairs; the name of a photograph includes its subfolders."""
    found = {name: pattern.search(name) for name in pairs}
    if nowhere := [name for name, match in found.items() if not (match and match["place"])]:
        raise InputError(
            f"--place {pattern.pattern!a} finds no place in the name of "
            f"{counted(len(nowhere), 'photograph')}: {bounded(nowhere)}"
        )
    items = []
    for name, match in found.items():
        assert match is not None
        area = match.groupdict().get("area") or match["place"]
        items.append(Item(*pairs[name], name.replace("/", "__"), match["place"], area))
    return items


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern with a group `place`.

    Raises:
        InputError: It is too long, invalid, or without the group.
    """
    if len(pattern) > MAX_PATTERN:
        raise InputError(f"--place: {len(pattern)} characters, at most {MAX_PATTERN} are read")
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"--place {pattern!a}: not a regular expression ({error})") from None
    if "place" not in expression.groupindex:
        raise InputError(
            f"--place {pattern!a}: has no group called place; expected for example "
            "'^(?P<place>[^_]+)_'"
        )
    return expression


def _line(notice: str) -> str:
    if not notice.isprintable() or len(notice) > MAX_NOTICE:
        raise InputError(f"--notice: expected one printable line of at most {MAX_NOTICE} letters")
    return notice
