"""Published figures stand apart: found for what was published, absent for all else."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.run_summary import RunSummary, parse_summary
from fl_ppseg.report.published import (
    published_elsewhere,
    published_for,
    published_table,
    reference_model,
)
from fl_ppseg.report.sheets import comparison_sheet, elsewhere_sheet
from fl_ppseg.report.tables import comparison_table

BASE, LARGE = "vit_base_patch16_384", "vit_large_patch16_384"
DECODERS = ("naive", "pup", "mla")


def config(data: dict[str, str] | None = None, **model: Any) -> Config:
    """Of a run on somebody's images with the classes of Cityscapes, or on other data."""
    images = {"root": "/data/cityscapes"} if data is None else data
    return Config.model_validate({"model": model, "data": images})


def run(*arms: str, miou: float = 30.0, failed: str | None = None) -> RunSummary:
    entry = {"aAcc": 80.0, "mIoU": miou, "mAcc": 40.0, "ratio_to_plain": miou / 30.0}
    entries = {arm: {} if arm == failed else entry for arm in arms}
    return parse_summary(json.dumps({"schema": 3, "arms": entries}), "summary.json")


@pytest.mark.parametrize(
    ("backbone", "decoder", "arm", "scores", "ratio"),
    [
        (BASE, "mla", "plain", (94.74, 71.79, 81.50), None),
        (BASE, "pup", "centralised", (93.90, 64.35, 74.68), None),
        (BASE, "naive", "conventional-2", (88.78, 40.59, 49.94), 0.5957),
        (LARGE, "mla", "domain-adaptation", (94.88, 72.57, 80.69), 0.9906),
        (LARGE, "pup", "conventional-2", (89.25, 38.59, 44.63), 0.5748),
        (f"{LARGE}.augreg_in21k_ft_in1k", "naive", "plain", (94.96, 71.38, 81.03), None),
    ],
)
def test_figures_are_those_of_the_paper(
    backbone: str, decoder: str, arm: str, scores: tuple[float, ...], ratio: float | None
) -> None:
    """Table 1 of Sueyoshi et al. 2025; ratios by hand, e.g. 40.59 / 68.14."""
    found = published_for(backbone, decoder, arm)
    assert found is not None
    assert (found.aAcc, found.mIoU, found.mAcc) == scores
    assert found.ratio == (None if ratio is None else pytest.approx(ratio, abs=5e-5))
    assert found.source.name == "Sueyoshi et al. 2025"
    assert found.source.data == "Cityscapes"


def test_the_table_is_whole() -> None:
    """2 backbones x 3 decoders x 3 methods; the adapted one about ties with plain."""
    for backbone in (BASE, LARGE):
        for decoder in DECODERS:
            methods = published_table(backbone, decoder)
            names = [entry.method for entry in methods]
            assert names == ["baseline", "conventional 2", "domain adaptation"]
            assert methods[1].mIoU < methods[0].mIoU
            assert methods[2].ratio == pytest.approx(1.015, abs=0.035)


def test_nobody_published_the_others() -> None:
    published = {"plain", "centralised", "conventional-2", "domain-adaptation"}
    for arm in builtin_arms():
        assert (published_for(BASE, "pup", arm) is not None) == (arm in published)
    assert published_for("vit", "pup", "plain") is None
    assert published_for("vit_base_patch16_224", "pup", "plain") is None
    assert published_for(BASE, "other", "plain") is None


def test_a_published_model_has_published_columns() -> None:
    settings = config(backbone=BASE, decoder="mla")
    sheet = comparison_sheet(run("plain", "domain-adaptation", "per-image"), settings)
    marks = [column.published for column in sheet.columns]
    theirs = {
        row[0]: [text for text, mark in zip(row, marks, strict=True) if mark] for row in sheet.cells
    }
    assert theirs == {
        "plain": ["94.74", "71.79", "81.50", "–"],
        "domain-adaptation": ["94.54", "70.99", "80.85", "0.989"],
        "per-image": ["–", "–", "–", "–"],
    }
    assert sheet.source == "Sueyoshi et al. 2025, SETR ViT-B MLA, Cityscapes"
    assert all(
        entry.source.name != "Sueyoshi et al. 2025" for entry in elsewhere_sheet(settings).rows
    )


def test_procedural_scenes_are_nobodys_published_data() -> None:
    settings = config({}, backbone=BASE, decoder="mla")
    headings = [c.heading for c in comparison_sheet(run("plain"), settings).columns if c.published]
    assert "published mIoU" not in headings


def test_a_model_that_nobody_published_has_the_published_ratio_alone() -> None:
    sheet = comparison_sheet(run("plain", "conventional-2"), config())
    published = [column for column in sheet.columns if column.published]
    assert [column.heading for column in published] == ["published of baseline"]
    assert "SETR ViT-B PUP" in sheet.source
    assert [published[0].text(row) for row in sheet.rows] == ["–", "0.694"]
    shown = [(row.model, row.method) for row in elsewhere_sheet(config()).rows]
    assert ("SETR ViT-B PUP", "baseline") in shown


def test_other_classes_are_not_comparable() -> None:
    data = {"root": "/data/camvid", "classes": "camvid"}
    camvid = config(data, backbone=BASE, decoder="pup")
    sheet = comparison_sheet(run("plain", "conventional-2"), camvid)
    assert [c.heading for c in sheet.columns if c.published] == ["published of baseline"]


@pytest.mark.parametrize("arms", [("plain",), ("plain", "per-client-private", "per-image")])
def test_runs_without_a_published_method_have_no_such_column(arms: tuple[str, ...]) -> None:
    sheet = comparison_sheet(run(*arms), config(backbone=BASE, decoder="pup"))
    assert not any(column.published for column in sheet.columns)
    assert sheet.source == ""


def test_a_failed_arm_is_not_filled_from_the_published_figure() -> None:
    summary = run("plain", "conventional-2", failed="conventional-2")
    sheet = comparison_sheet(summary, config(backbone=BASE, decoder="pup"))
    ours = [
        text
        for column, text in zip(sheet.columns, sheet.cells[1], strict=True)
        if not column.published
    ]
    assert ours == ["conventional-2", *["–"] * (len(ours) - 1)]


def test_the_terminal_names_the_source() -> None:
    stream = io.StringIO()
    Console(file=stream, width=80).print(comparison_table(run("plain", "conventional-2"), config()))
    text = " ".join(stream.getvalue().split())
    assert "published: Sueyoshi et al. 2025, SETR ViT-B PUP, Cityscapes" in text
    assert "0.694" in text


def test_context_names_its_sources() -> None:
    """Official SETR at 40k iterations and FedDrive."""
    found = {(entry.model, entry.method): entry for entry in published_elsewhere()}
    assert found["SETR ViT-L PUP", "plain"].mIoU == 78.39
    assert found["BiSeNetV2", "federated plain (FedAvg)"].mIoU == 43.33
    for entry in found.values():
        assert entry.source.data == "Cityscapes"
        assert "arXiv" in entry.source.where
        assert entry.source.setting


def test_the_reference_is_published() -> None:
    assert reference_model() == (BASE, "pup")
    assert published_table(*reference_model())
