"""Runs cell after cell, then makes the table over all; finished cells are not run again."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fl_ppseg.config.documents import parse_json, read_text
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.run_layout import CELLS, INDEX
from fl_ppseg.config.sections import Config
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.experiment.cells.grid import Cell
from fl_ppseg.experiment.cells.page import index_page
from fl_ppseg.experiment.cells.table import cells_json, cells_sheet, cells_table
from fl_ppseg.experiment.initial_weights import check_arm
from fl_ppseg.federation.public_weights import check_start
from fl_ppseg.federation.run_folder import RunFolder, is_finished
from fl_ppseg.federation.run_summary import MAX_BYTES, SCHEMA, read_summary
from fl_ppseg.progress.lines import say
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.files import write_atomically


def check(cells: Sequence[Cell]) -> None:
    """Build every cell's model without memory for its weights, and look up what it names.

    Raises:
        InputError: A cell cannot start; data are checked when the first one starts.
    """
    for cell in cells:
        try:
            _check(cell.config)
        except InputError as error:
            raise InputError(f"cell {cell.name}: {error}") from None


def compare(
    cells: Sequence[Cell], out: Path, run: Callable[[Config, Path], None], quiet: bool
) -> None:
    """Run the cells that are not finished, one after the other.

    Args:
        cells: What to run, in this order.
        out: Folder of the comparison; each cell's run folder lies in it under the cell's name.
        run: Takes a cell's config and run folder, and carries that run to its report.
        quiet: Do not say which cell is being run.

    Raises:
        InputError: The data or config of a cell do not fit.
        RunError: A cell failed.
    """
    for number, cell in enumerate(cells, 1):
        folder = RunFolder(out / cell.name)
        done = folder.report.exists() and is_finished(cell.config, folder) and _is_current(folder)
        if not quiet:
            state = ", finished before" if done else ""
            print(f"cell {number} of {len(cells)}: {cell.name}{state}", file=sys.stderr)
        if not done:
            try:
                run(cell.config, folder.path)
            except (InputError, RunError) as error:
                raise type(error)(f"cell {cell.name}: {error}") from error


def conclude(name: str, cells: Sequence[Cell], out: Path) -> None:
    """Write and print the table over all cells, which are all finished.

    Args:
        name: Of the comparison.
        cells: In the order to show.
        out: Folder of the comparison.
    """
    summaries = [read_summary(RunFolder(out / cell.name).summary) for cell in cells]
    sheet = cells_sheet(list(zip(cells, summaries, strict=True)))
    content = json.dumps({"name": name} | cells_json(sheet.rows), indent=1) + "\n"
    write_atomically(out / CELLS, content)
    write_atomically(out / INDEX, index_page(name, sheet))
    console = Console()
    console.print(cells_table(sheet))
    say(console, f"reports: {out / INDEX}")


def _is_current(folder: RunFolder) -> bool:
    """Whether this version wrote the summary; an earlier one's is written anew from the results."""
    if not folder.summary.exists():
        return False
    text = read_text(folder.summary, MAX_BYTES)
    found: dict[str, Any] = parse_json(text, str(folder.summary), MAX_BYTES)
    return found.get("schema") == SCHEMA


def _check(config: Config) -> None:
    num_classes = load_class_table(config.data.classes).num_classes
    with torch.device("meta"):
        model = build_architecture(config.model, num_classes, config.data.image_size)
    weights = config.model.weights
    if weights not in (None, "shipped"):
        if not Path(str(weights)).exists():
            raise InputError(f"model.weights {weights}: no such file")
        check_start(Path(str(weights)))
    for name, arm in arms_of(config).items():
        check_arm(config.model, name, arm, model.patch_size)
