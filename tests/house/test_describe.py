"""What there is to choose from, in words: all of it, as the rest of the program takes it."""

import json
import sys
from typing import Any

import pytest
import yaml

from fl_ppseg.config.cipher_versions import VERSIONS
from fl_ppseg.config.loading import builtin_arms, load_config
from fl_ppseg.config.reference import REQUIRED, Setting, settings
from fl_ppseg.config.sections import Config
from fl_ppseg.describe import main
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

SETTINGS = {setting.key: setting for setting in settings()}
BEYOND = {"> ": 0, ">= ": -1, "< ": 0, "<= ": 1}
"""How far from a bound the nearest whole number lies that is refused."""
BOUNDED = [
    (setting, *each.split(" "))
    for setting in SETTINGS.values()
    for each in setting.bounds.split("; ")
    if each.startswith(("<", ">")) and setting.type.startswith(("number", "whole number"))
    if setting.default != REQUIRED and "privacy." not in setting.key and "<id>" not in setting.key
]


def described(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert main([*argv, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def leaves(values: object, prefix: str = "") -> set[str]:
    """Dotted keys of a config as it is written."""
    if not isinstance(values, dict) or not values:
        return {prefix[:-1]}
    return {leaf for name, value in values.items() for leaf in leaves(value, f"{prefix}{name}.")}


def test_every_key_of_a_config_is_described() -> None:
    written = leaves(Config().model_dump(mode="json"))
    assert written - SETTINGS.keys() == {"arm_table"}  # its keys are those of an arm of one's own
    more = {key for key in SETTINGS if not key.startswith("arm_table.<id>.")} - written
    assert more == {
        f"federation.privacy.{n}" for n in ("noise_multiplier", "clipping_norm", "delta")
    }
    arm = builtin_arms()["plain"].model_dump()
    assert {f"arm_table.<id>.{name}" for name in arm} == SETTINGS.keys() - written - more
    assert all(setting.doc and setting.type for setting in SETTINGS.values())
    assert SETTINGS["training.batch_size"] == Setting(
        "training.batch_size", "whole number", "8", "> 0; <= 65536", "Batch size: views per step."
    )


def test_defaults_are_what_a_config_says_where_nothing_is_set() -> None:
    usual = [key for key in SETTINGS if "<id>" not in key and "privacy." not in key]
    spelled_out = [f"{key}={SETTINGS[key].default}" for key in usual]
    assert all(REQUIRED not in each for each in spelled_out)
    assert load_config(None, spelled_out) == Config()
    assert SETTINGS["model.patch_size"].default == "8"  # of the default backbone
    assert SETTINGS["federation.privacy.noise_multiplier"].default == REQUIRED


@pytest.mark.parametrize(
    ("setting", "sign", "bound"), BOUNDED, ids=[f"{s.key}{sign}{b}" for s, sign, b in BOUNDED]
)
def test_what_lies_beyond_a_bound_is_refused(setting: Setting, sign: str, bound: str) -> None:
    value = yaml.safe_load(bound) + BEYOND[f"{sign} "]
    with pytest.raises(InputError, match=setting.key):
        load_config(None, [f"{setting.key}={value}"])


def test_words_of_a_choice_are_what_is_taken() -> None:
    for word in SETTINGS["federation.strategy"].type.split(" | "):
        assert load_config(None, [f"federation.strategy={word}"]).federation.strategy == word


def test_arms_and_ciphers_are_all_there(capsys: pytest.CaptureFixture[str]) -> None:
    arms = {row.pop("id"): row for row in described(capsys, "arms")}
    assert arms == {name: arm.model_dump(mode="json") for name, arm in builtin_arms().items()}
    ciphers = {row["name"]: row for row in described(capsys, "ciphers")}
    assert {name: row["version"] for name, row in ciphers.items()} == VERSIONS
    assert ciphers["shuffle-spatial"]["effects"] == ["moves pixels"]
    assert ciphers["negative-positive"]["doc"].startswith("Inversion of each value or not")
    assert [row["key"] for row in described(capsys, "config")] == list(SETTINGS)


def test_a_pipe_gets_a_line_for_each_row_and_a_terminal_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["arms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(builtin_arms())
    row = next(line for line in lines if line.startswith("per-image-invariant "))
    assert row.split()[1:5] == [
        *("federated", "per-image", "shuffle-spatial+negative-positive", "invariant")
    ]
    assert row.endswith(builtin_arms()["per-image-invariant"].note)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["config", "training.batch_size"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "training.batch_size  whole number  8  > 0; <= 65536",
        "    Batch size: views per step.",
    ]
    assert main(["config", "federation.round_timeout"]) == 0
    _, *words = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in words)


def test_a_key_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, ["config", "trainning"]) == 2
    assert "no key of a config begins with 'trainning'" in capsys.readouterr().err
