"""A comparison over several models: its cells, its table, and going on where it stopped."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_federation as small
import yaml
from html_page import assert_self_contained
from rich.console import Console

from fl_ppseg.config.loading import load_config, read_values
from fl_ppseg.experiment.cells.grid import Cell, cells_of, dump_values
from fl_ppseg.experiment.cells.page import index_page
from fl_ppseg.experiment.cells.table import cells_json, cells_sheet, cells_table
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import RunSummary, parse_summary
from fl_ppseg.progress.events import Event
from fl_ppseg.progress.observer import Observer
from fl_ppseg.simulate import main
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError, RunError

DECODERS = {"model.decoder": ["naive", "pup"]}
NAMES = ["naive", "pup"]

# From values to cells.


def test_every_combination_is_a_cell_the_last_key_fastest() -> None:
    values = {"cells": {"model.decoder": ["mla", "pup"], "federation.num_rounds": [3, 1]}}
    cells = cells_of(values, "here")
    assert [cell.name for cell in cells] == [
        "mla-num_rounds=3", "mla-num_rounds=1", "pup-num_rounds=3", "pup-num_rounds=1",
    ]  # fmt: skip
    assert cells[1].settings == {"model.decoder": "mla", "federation.num_rounds": 1}
    for cell in cells:
        assert cell.config.cells == {}
        assert cell.config.name == f"default-{cell.name}"
        assert cell.config.model.decoder == cell.settings["model.decoder"]
        assert cell.config.federation.num_rounds == cell.settings["federation.num_rounds"]


def test_defaults_that_follow_from_a_cells_values_are_the_cells_own() -> None:
    """A small ViT has sizes of its own; timm's have theirs, whatever the first cell was."""
    small_one, large = cells_of({"cells": {"model.backbone": ["vit", "vit_tiny_patch16_384"]}}, "")
    assert small_one.config == load_config(overrides={"name": "default-vit"})
    assert (small_one.config.model.weights, large.config.model.weights) == ("shipped", None)
    assert large.config.model.patch_size is None
    assert large.config.model.decoder_channels == 256


def test_values_are_left_as_they_were_and_survive_their_file(tmp_path: Path) -> None:
    values = {"data": {"root": Path("/data/a b")}, "cells": {"model.decoder": ["mla", "pup"]}}
    before = dump_values(values)
    cells = cells_of(values, "here")
    assert dump_values(values) == before
    (tmp_path / "config.yaml").write_text(before)
    assert cells_of(read_values(tmp_path / "config.yaml"), "here") == cells


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a/b", "a-b"),
        ("../up", "up"),
        ("two words", "two-words"),
        ([64, 128], "image_size=-64-128"),
        (None, "image_size=null"),
    ],
)
def test_a_cells_name_is_one_folder_name(name: object, folder: str) -> None:
    key = "arm_table.mine.note" if isinstance(name, str) else "data.image_size"
    values: dict[str, Any] = {"cells": {key: [name]}}
    if name is None:
        with pytest.raises(InputError, match=f"cell {folder}: data.image_size"):
            cells_of(values, "here")
        return
    (cell,) = cells_of(values, "here")
    assert cell.name == folder


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"model.decoder": []}, "cells.model.decoder: .*at least 1 item"),
        ({"model.decoder": "mla"}, "cells.model.decoder: .*got 'mla'"),
        (["model.decoder"], "cells: .*dictionary"),
        ({"model.decodr": ["mla"]}, "cell mla: unknown key 'model.decodr'; did you mean 'decoder'"),
        ({"model.decoder": ["mla", "fcn"]}, "cell fcn: model.decoder: .*got 'fcn'"),
        ({"clients.many": [1]}, "clients is a value|clients: .*valid integer"),
        ({"arms": [["plain"], ["plian"]]}, "cell .*: unknown arm 'plian'; did you mean 'plain'"),
        ({"model.decoder": ["mla", "mla"]}, "'mla' is repeated"),
        ({"cells.x": [1]}, "'cells.x' cannot vary between cells"),
        ({"name": ["a"]}, "'name' cannot vary between cells"),
    ],
)
def test_cells_that_cannot_be_are_one_line(cells: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^here: .*(?:{said})") as refused:
        cells_of({"cells": cells}, "here")
    assert "\n" not in str(refused.value)


# The table.


def summary(**arms: float) -> RunSummary:
    """The summary of a run with these mIoU."""
    entries = {
        arm.replace("_", "-"): {
            "aAcc": 90.0, "mIoU": score, "mAcc": 60.5, "ratio_to_plain": score / arms["plain"],
        }
        for arm, score in arms.items()
    }  # fmt: skip
    return parse_summary(json.dumps({"schema": 3, "arms": entries}), "summary.json")


@pytest.fixture
def table1() -> list[tuple[Cell, RunSummary]]:
    values = {
        "name": "table-1",
        "cells": {"model.backbone": ["vit_base_patch16_384"], "model.decoder": ["mla", "naive"]},
        "data": {"root": Path("/data/cityscapes")},
    }
    scores = [summary(plain=50.0, domain_adaptation=40.0), summary(plain=20.0, per_image=5.0)]
    return list(zip(cells_of(values, "here"), scores, strict=True))


def test_published_figures_stand_in_columns_of_their_own(
    table1: list[tuple[Cell, RunSummary]],
) -> None:
    """Figures of arXiv 2507.12730, table 1: ViT-B MLA and Naive."""
    sheet = cells_sheet(table1)
    assert [column.heading for column in sheet.columns if column.published] == [
        "published aAcc", "published mIoU", "published mAcc", "published ratio",
    ]  # fmt: skip
    base = "vit_base_patch16_384"
    assert sheet.cells == (
        (f"{base}-mla", "plain", "90.00", "50.00", "60.50", "1.000",
         "94.74", "71.79", "81.50", "–"),
        (f"{base}-mla", "domain-adaptation", "90.00", "40.00", "60.50", "0.800",
         "94.54", "70.99", "80.85", "0.989"),
        (f"{base}-naive", "plain", "90.00", "20.00", "60.50", "1.000",
         "93.79", "68.14", "78.39", "–"),
        (f"{base}-naive", "per-image", "90.00", "5.00", "60.50", "0.250", "–", "–", "–", "–"),
    )  # fmt: skip
    assert "Sueyoshi" in sheet.source


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_of_any_width_shows_every_name_and_number(
    width: int, table1: list[tuple[Cell, RunSummary]]
) -> None:
    sheet = cells_sheet(table1)
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(cells_table(sheet))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join(lines).replace(" ", "")
    for cell, arm, *scores in sheet.cells:
        assert cell in text and arm in text
        assert "".join(scores) in text


def test_cells_json_keeps_them_apart(table1: list[tuple[Cell, RunSummary]]) -> None:
    cells = cells_json(cells_sheet(table1).rows)["cells"]
    mla = cells["vit_base_patch16_384-mla"]
    assert mla["settings"] == {"model.backbone": "vit_base_patch16_384", "model.decoder": "mla"}
    adapted = mla["arms"]["domain-adaptation"]
    assert adapted["mIoU"] == {"mean": 40.0, "spread": None}
    assert adapted["ratio_to_plain"] == 0.8
    assert adapted["published"]["mIoU"] == 70.99
    assert "2507.12730" in adapted["published"]["source"]
    assert cells["vit_base_patch16_384-naive"]["arms"]["per-image"]["published"] is None


@pytest.mark.parametrize(
    ("backbone", "classes", "root"),
    [
        ("vit", "cityscapes", "/data"),
        ("vit_base_patch16_384", "camvid", "/data"),
        ("vit_base_patch16_384", "cityscapes", None),
    ],
)
def test_what_nobody_published_has_no_such_columns(
    backbone: str, classes: str, root: str | None
) -> None:
    model, data = {"backbone": backbone}, {"classes": classes, "root": root}
    cells = cells_of({"cells": DECODERS, "model": model, "data": data}, "here")
    sheet = cells_sheet([(cell, summary(plain=10.0)) for cell in cells])
    headings = [column.heading for column in sheet.columns]
    assert headings == ["cell", "arm", "aAcc", "mIoU", "mAcc", "of plain"]
    assert "ublished:" not in index_page("mine", sheet)


def test_the_page_links_each_cells_report_and_escapes(
    table1: list[tuple[Cell, RunSummary]],
) -> None:
    page = index_page("table <1>", cells_sheet(table1))
    for decoder in ("mla", "naive"):
        assert page.count(f'href="./vit_base_patch16_384-{decoder}/report.html"') == 1
    assert page.count('<th scope="row">') == 4
    assert "table &lt;1&gt;: 2 cells" in page
    assert "<1>" not in page
    assert "arXiv:2507.12730" in page
    assert_self_contained(page)


# The command.

Simulate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(simulate: Simulate) -> Simulate:
    """Compare small models on the small data set: exit status, standard output, standard error."""

    def call(*options: str, cells: Any = DECODERS) -> tuple[int, str, str]:
        return simulate(*options, arms=["plain"], cells=cells)

    return call


@pytest.fixture
def bare_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without figures, for tests that are not about them."""

    def write(folder: Path, *_: object) -> Path:
        (folder / "report.html").write_text("bare")
        return folder / "report.html"

    monkeypatch.setattr("fl_ppseg.report.conclusion.write_report", write)


def results(folder: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl without what time decides."""
    lines = RunFolder(folder).lines()
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


class Interrupting(Observer):
    """Ends the run at the end of one of its rounds, of which the start is the first."""

    def __init__(self, error: BaseException, count: int) -> None:
        self.error, self.left = error, count

    def on_event(self, event: Event) -> None:
        self.left -= event.event == "round_finished"
        if self.left == 0:
            raise self.error


def test_each_cell_is_an_ordinary_run_and_a_row_of_the_table(
    tmp_path: Path, compare: Simulate, scenes: Path
) -> None:
    out = tmp_path / "out"
    status, printed, err = compare("--quiet", "--out", str(out))
    assert (status, err) == (0, "")
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines if line and line[0] in NAMES] == NAMES
    rows = [line for line in lines if line[:1] == ["plain"] and line[1:]]
    table = json.loads((out / "cells.json").read_text("utf-8"))
    assert list(table["cells"]) == NAMES
    for name, row in zip(NAMES, rows, strict=True):
        folder = RunFolder(out / name)
        config = load_config(folder.config)
        assert (config.model.decoder, config.cells) == (name, {})
        assert f'href="./{name}/report.html"' in (out / "index.html").read_text("utf-8")
        assert folder.report.exists()
        plain = json.loads(folder.summary.read_text("utf-8"))["arms"]["plain"]
        assert table["cells"][name]["arms"]["plain"]["mIoU"]["mean"] == plain["mIoU"]
        assert row[2] == f"{plain['mIoU']:.2f}"
        assert row[5] == f"{plain['gain']:+.1f}"
        assert table["cells"][name]["arms"]["plain"]["gain"]["mean"] == plain["gain"]
        assert table["cells"][name]["no_image"]["mIoU"] > 0

    alone = small.settings(scenes, arms=["plain"], model={"decoder": "pup"})
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone))
    argv = ["--config", str(tmp_path / "alone.yaml"), "--out", str(tmp_path / "alone"), "--quiet"]
    assert run(main, [*argv, "--vault-dir", str(tmp_path / "vaults")]) == 0
    assert results(tmp_path / "alone") == results(out / "pup")


@pytest.mark.usefixtures("bare_reports")
@pytest.mark.parametrize(
    ("count", "error", "said", "finished"),
    [
        (1, KeyboardInterrupt(), "interrupted; ", []),
        (4, RunError("no more"), "cell pup: no more", ["naive"]),
    ],
)
def test_a_comparison_stopped_inside_a_cell_goes_on_to_the_same_bits(
    count: int,
    error: BaseException,
    said: str,
    finished: list[str],
    tmp_path: Path,
    compare: Simulate,
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert compare("--quiet", "--out", str(whole))[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        observer = Interrupting(error, count)
        patch.setattr("fl_ppseg.experiment.simulation.choose_view", lambda *_: observer)
        status, _, err = compare("--quiet", "--out", str(broken))
    assert status == 1
    assert said in err and err.count("\n") == 1
    assert [name for name in NAMES if (broken / name / "report.html").exists()] == finished
    assert not (broken / "cells.json").exists()

    assert compare("--quiet", "--resume", "--out", str(broken))[0] == 0
    for name in NAMES:
        assert results(broken / name) == results(whole / name)
        file = f"{name}/plain/seed_0/round_0002.safetensors"
        assert (broken / file).read_bytes() == (whole / file).read_bytes()
    assert (broken / "cells.json").read_bytes() == (whole / "cells.json").read_bytes()


@pytest.mark.usefixtures("bare_reports")
def test_a_finished_cell_of_an_earlier_version_is_summed_up_anew_and_not_trained(
    tmp_path: Path, compare: Simulate
) -> None:
    out = tmp_path / "out"
    assert compare("--quiet", "--out", str(out))[0] == 0
    file = out / "naive" / "summary.json"
    whole = json.loads(file.read_text("utf-8"))
    old = {k: v for k, v in whole.items() if k != "no_image"} | {"schema": 1}
    file.write_text(json.dumps(old))
    before = (out / "naive" / "results.jsonl").read_bytes()
    assert compare("--quiet", "--resume", "--out", str(out))[0] == 0
    found = json.loads(file.read_text("utf-8"))
    assert (found["schema"], found["no_image"]) == (3, whole["no_image"])
    assert (out / "naive" / "results.jsonl").read_bytes() == before


@pytest.mark.usefixtures("bare_reports")
def test_finished_cells_are_left_alone(tmp_path: Path, compare: Simulate) -> None:
    """Stopped between two cells: the first one's files keep their times, and the rest is done."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        real = RunFolder.create

        def stop(folder: RunFolder, *texts: str) -> None:
            if folder.path.name == "pup":
                raise KeyboardInterrupt
            real(folder, *texts)

        patch.setattr(RunFolder, "create", stop)
        assert compare("--quiet", "--out", str(out))[0] == 1
    first = {path: path.stat().st_mtime_ns for path in (out / "naive").rglob("*") if path.is_file()}
    status, _, err = compare("--resume", "--out", str(out))
    assert status == 0
    assert "cell 1 of 2: naive, finished before\n" in err
    assert "cell 2 of 2: pup\n" in err
    assert {path: path.stat().st_mtime_ns for path in first} == first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fl_ppseg.experiment.simulation.prepare", pytest.fail)
        assert compare("--quiet", "--resume", "--out", str(out))[0] == 0


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"model.decoder": ["naive", "fcn"]}, "cell fcn: model.decoder"),
        ({"model.decoder": ["naive"], "model.depth": [2, 1], "model.num_auxiliary": [1]}, "deeper"),
        ({"model.backbone": ["vit", "vit_bas_patch16_384"]}, "cell vit_bas_patch16_384: .*unknown"),
        ({"data.image_size": [[32, 64], [30, 64]]}, "cell image_size=-30-64: .*8x8 patches"),
        ({"model.weights": [None, "no.safetensors"]}, "no.safetensors: no such file"),
        ({"data.classes": ["cityscapes", "animals"]}, "cell animals: .*animals"),
        ({"model.decoder": []}, "at least 1 item"),
    ],
)
def test_a_bad_cell_is_said_before_the_first_one_begins(
    cells: Any, said: str, tmp_path: Path, compare: Simulate
) -> None:
    status, printed, err = compare("--quiet", "--out", str(tmp_path / "out"), cells=cells)
    assert (status, printed) == (2, "")
    assert re.fullmatch(rf"error: [^\n]*{said}[^\n]*\n", err), err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "vaults").exists()


def test_bad_data_name_the_cell(tmp_path: Path, compare: Simulate) -> None:
    status, _, err = compare("--quiet", "--data-root", str(tmp_path / "nowhere"))
    assert status == 2
    assert re.fullmatch(r"error: cell naive: [^\n]*nowhere[^\n]*\n", err)


def test_keys_do_not_lie_in_a_comparison(tmp_path: Path, compare: Simulate) -> None:
    out = tmp_path / "out"
    status, _, err = compare("--quiet", "--out", str(out), "--vault-dir", str(out / "keys"))
    assert status == 2
    assert "keys must be kept apart from what others see" in err
    assert not out.exists()


def test_a_comparison_needs_its_vault_to_go_on(tmp_path: Path, compare: Simulate) -> None:
    out = tmp_path / "out"
    assert compare("--quiet", "--prepare", "--out", str(out))[0] == 0
    assert not (out / "cells.json").exists()
    other = ("--vault-dir", str(tmp_path / "others"))
    status, _, err = compare("--quiet", "--resume", "--out", str(out), *other)
    assert status == 2
    assert "cell naive: " in err and "holds no vault of this run" in err
    status, _, err = compare("--quiet", "--out", str(out))
    assert (status, err.count("\n")) == (2, 1)
    assert "holds a run already" in err
