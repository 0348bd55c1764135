"""From lists of values to one config per cell, all validated before the first run."""

import copy
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from fl_ppseg.config.checksum import with_checksum
from fl_ppseg.config.loading import assign, config_of
from fl_ppseg.config.names import check_name
from fl_ppseg.config.sections import Config
from fl_ppseg.system.errors import InputError

MAX_NAME = 127
"""Characters of the name of a cell's run, which begins with that of the comparison."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.=-]+")


@dataclass(frozen=True)
class Cell:
    """One combination of the values, and the run that it stands for."""

    name: str
    """Its values in a row; the name of its run folder."""
    settings: Mapping[str, Any]
    """Its values by dotted key."""
    config: Config
    """Its whole config, which has no cells."""


def cells_of(values: Mapping[str, Any], source: str) -> list[Cell]:
    """Every combination of the values in `cells`, the last key's values changing fastest.

    A cell's values are set before its config is validated, so that defaults which follow from them
    are the cell's.

    Args:
        values: A whole config by section, as `read_values` gives it.
        source: What an error names.

    Raises:
        InputError: If a cell is not a valid config, or two are the same.
    """
    base = config_of(values, source)
    keys = list(base.cells)
    cells = [
        _cell(values, dict(zip(keys, chosen, strict=True)), f"{base.name}-", source)
        for chosen in itertools.product(*base.cells.values())
    ]
    names = [cell.name for cell in cells]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{source}: cells: {name!r} is repeated; list each value once")
    return cells


def dump_values(values: Mapping[str, Any]) -> str:
    """Values by section as YAML that `read_values` reads back to the same; paths become texts."""
    return with_checksum(
        yaml.safe_dump(json.loads(json.dumps(values, default=str)), sort_keys=False)
    )


def _cell(values: Mapping[str, Any], settings: dict[str, Any], prefix: str, source: str) -> Cell:
    name = "-".join(_word(key, value) for key, value in settings.items())
    own = copy.deepcopy({key: value for key, value in values.items() if key != "cells"})
    for key, value in settings.items():
        if key.partition(".")[0] in ("cells", "name"):
            raise InputError(f"{source}: cells: {key!r} cannot vary between cells")
        assign(own, key, value)
    try:
        check_name(name)
    except ValueError as error:
        raise InputError(f"{source}: cells: a cell's values are its name; {error}") from None
    own["name"] = (prefix + name)[:MAX_NAME]
    return Cell(name, settings, config_of(own, f"{source}: cell {name}"))


def _word(key: str, value: object) -> str:
    """A value as a part of a folder's name: texts as they are, others with their key.

    >>> _word("model.decoder", "mla"), _word("federation.num_rounds", 3)
    ('mla', 'num_rounds=3')
    """
    text = value if isinstance(value, str) else f"{key.rpartition('.')[2]}={json.dumps(value)}"
    return _NOT_IN_A_NAME.sub("-", text).strip(".-") or "-"
