"""Figures that others published, for columns of their own beside a run: see published.yaml."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from fl_ppseg.config.documents import read_yaml
from fl_ppseg.config.loading import validate

_FILE = Path(__file__).with_name("published.yaml")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Source(_Entry):
    """Who published, where, and under what conditions."""

    name: str
    """Short name for headings."""
    where: str
    """Conference and arXiv number."""
    data: str
    """Data set that the scores are on."""
    setting: str
    """What a reader must know before comparing."""


class Published(NamedTuple):
    """One published result; scores in percent, None where the source has none.

    Attributes:
        source: Where it was published.
        model: Backbone and decoder in the source's words.
        method: What was done to the images, in the source's words.
        aAcc: Pixel accuracy.
        mIoU: Mean intersection over union.
        mAcc: Mean recall.
        ratio: mIoU over that of the source's baseline on the same model; None for a baseline.
    """

    source: Source
    model: str
    method: str
    aAcc: float | None  # noqa: N815
    mIoU: float  # noqa: N815
    mAcc: float | None  # noqa: N815
    ratio: float | None


class _Model(_Entry):
    backbone: str
    decoder: str


class _Table(_Entry):
    source: str
    baseline: str
    arms: dict[str, str]
    backbones: dict[str, str]
    reference: _Model
    figures: dict[str, dict[str, dict[str, tuple[float, float, float]]]]


class _Elsewhere(_Entry):
    source: str
    model: str
    method: str
    mIoU: float  # noqa: N815


class _File(_Entry):
    sources: dict[str, Source]
    table: _Table
    elsewhere: tuple[_Elsewhere, ...]


def published_for(backbone: str, decoder: str, arm: str) -> Published | None:
    """The published figures of an arm on a model; None if nobody published them.

    Args:
        backbone: Name of a timm model; a tag of its weights after a dot is ignored.
        decoder: `naive`, `pup` or `mla`.
        arm: Id of the arm.

    >>> published_for("vit_base_patch16_384", "mla", "domain-adaptation").mIoU
    70.99
    >>> published_for("vit_base_patch16_384", "mla", "per-image")
    """
    method = _read().table.arms.get(arm)
    found = published_table(backbone, decoder)
    return next((entry for entry in found if entry.method == method), None)


def published_table(backbone: str, decoder: str) -> tuple[Published, ...]:
    """All methods that were published on a model, the baseline first; empty if none were."""
    file = _read()
    table = file.table
    name = backbone.partition(".")[0]
    methods = table.figures.get(name, {}).get(decoder, {})
    return tuple(
        Published(
            file.sources[table.source],
            f"SETR {table.backbones[name]} {_decoder(decoder)}",
            method,
            *scores,
            None if method == table.baseline else scores[1] / methods[table.baseline][1],
        )
        for method, scores in methods.items()
    )


def reference_model() -> tuple[str, str]:
    """Backbone and decoder whose published figures stand for models that nobody published."""
    reference = _read().table.reference
    return reference.backbone, reference.decoder


def published_elsewhere() -> tuple[Published, ...]:
    """Published figures of other settings: official SETR, federated segmentation."""
    file = _read()
    return tuple(
        Published(file.sources[e.source], e.model, e.method, None, e.mIoU, None, None)
        for e in file.elsewhere
    )


def _decoder(name: str) -> str:
    return "Naive" if name == "naive" else name.upper()


@cache
def _read() -> _File:
    return validate(_File, read_yaml(_FILE), str(_FILE))
