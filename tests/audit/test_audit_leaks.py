"""The leak table as data: what is best, and what comes back from JSON."""

import json

import numpy as np
import pytest

from fl_ppseg.leaks.file import parse_leaks
from fl_ppseg.leaks.scores import Scores
from fl_ppseg.leaks.table import ADVERSARIES, MORE_THAN, Adversary, ArmLeaks, Finding, LeakTable
from fl_ppseg.system.errors import InputError


def scores(ssim: float) -> Scores:
    return Scores(ssim, 20.0, 0.5, 33.0)


def finding(adversary: Adversary, ssim: float | None, attack: str = "thumbnail") -> Finding:
    found = None if ssim is None else scores(ssim)
    excess = None if ssim is None else ssim - 0.25
    picture = np.zeros((3, 2, 2), np.uint8)
    return Finding(attack, adversary, found, "8 images", 1.5, excess=excess, picture=picture)


def table(*findings: Finding) -> LeakTable:
    arm = ArmLeaks(
        "per-image", "a note", "per-image shuffle", scores(0.1), scores(0.4), findings, 0.5
    )
    ends = (scores(0.2), scores(0.25))
    return LeakTable("procedural scenes", 8, (64, 128), 8, *ends, 48.0, 61.0, (arm,))


def test_the_best_is_the_highest_ssim() -> None:
    arm = table(
        finding("coordinator", None),
        finding("ciphertext-thief", 0.3),
        finding("ciphertext-thief", 0.35, "inverse network"),
    ).arms[0]
    best = arm.best("ciphertext-thief")
    assert best is not None and best.attack == "inverse network"
    assert arm.best("coordinator") is None


def test_who_holds_more_gets_at_least_as_much() -> None:
    arm = table(finding("ciphertext-thief", 0.3), finding("node-thief", 0.2)).arms[0]
    for adversary in ("node-thief", "known-plaintext"):
        best = arm.best(adversary)
        assert best is not None and best.scores == scores(0.3)
    assert arm.best("active-coordinator") is None


@pytest.mark.parametrize("given", [(0.4, 0.2), (0.2, 0.4)])
def test_coordinators_have_their_own_attacks_alone(given: tuple[float, float]) -> None:
    """One listens in its best case, one makes weights under the agreed settings."""
    listening, active = given
    arm = table(
        finding("coordinator", listening), finding("active-coordinator", active, "imprint")
    ).arms[0]
    for adversary, ssim in (("coordinator", listening), ("active-coordinator", active)):
        best = arm.best(adversary)
        assert best is not None and best.scores == scores(ssim)
    assert table(finding("coordinator", 0.4)).arms[0].best("active-coordinator") is None
    assert table(finding("active-coordinator", 0.4)).arms[0].best("coordinator") is None


def test_json_brings_all_but_pictures_back() -> None:
    given = table(finding("node-thief", 0.3), finding("coordinator", None))
    text = given.to_json()
    again = parse_leaks(text, "leaks.json")
    assert again.to_json() == text
    assert again.arms[0].best("node-thief") is not None
    assert '"picture"' not in text and '"targets"' not in text
    assert again.image_size == (64, 128)


def test_another_schema_is_refused() -> None:
    values = json.loads(table().to_json()) | {"schema": 99}
    with pytest.raises(InputError, match="schema"):
        parse_leaks(json.dumps(values), "leaks.json")


def test_who_holds_more_comes_later() -> None:
    assert ADVERSARIES[-2:] == ("coordinator", "active-coordinator")
    for more, less in MORE_THAN.items():
        assert ADVERSARIES.index(more) > ADVERSARIES.index(less)
        assert less not in MORE_THAN  # what is lent is lent once
