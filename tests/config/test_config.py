"""The one source of configuration: what it takes, and what it says when it takes it not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.federation import FederationConfig, PrivacyConfig
from fl_ppseg.config.loading import (
    arms_of,
    builtin_arms,
    config_for,
    dump_config,
    load_config,
    validate,
)
from fl_ppseg.config.names import ArmId
from fl_ppseg.config.run_layout import TAKEN
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import (
    Config,
    DataConfig,
    ModelConfig,
    PartitionConfig,
    TrainingConfig,
)
from fl_ppseg.system.errors import InputError

SECTIONS = (
    Config,
    ArmConfig,
    DataConfig,
    FederationConfig,
    ModelConfig,
    PartitionConfig,
    PrivacyConfig,
    TrainingConfig,
)
NOTHING = (None, None)
DESIGNED_ARMS = {
    "plain": ("plain", *NOTHING, "uploaded"),
    "plain-frozen-embedding": ("plain", *NOTHING, "frozen"),
    "centralised": ("plain", *NOTHING, "uploaded"),
    "local-only": ("plain", *NOTHING, "uploaded"),
    "per-client": ("per-client", "common", "derived", "uploaded"),
    "per-image": ("per-image", "common", "disposable", "uploaded"),
    "per-image-per-block": ("per-image", "per-block", "disposable", "uploaded"),
    "per-client-private": ("per-client", "common", "derived", "private"),
    "per-image-invariant": ("per-image", "per-block", "disposable", "invariant"),
    "per-image-invariant-labels": ("per-image", "per-block", "disposable", "invariant"),
    "per-image-invariant-spatial-labels": ("per-image", "per-block", "disposable", "invariant"),
    "per-image-invariant-spatial": ("per-image", "per-block", "disposable", "invariant"),
    "per-image-invariant-np": ("per-image", "per-block", "disposable", "invariant"),
    "per-image-invariant-shuffle": ("per-image", "per-block", "disposable", "invariant"),
    "conventional-1": ("shared", "common", "derived", "uploaded"),
    "conventional-2": ("shared", "common", "derived", "uploaded"),
    "domain-adaptation": ("shared", "common", "derived", "adapted"),
    "access-control-shf": ("shared", "common", "derived", "uploaded"),
    "access-control-np": ("shared", "common", "derived", "uploaded"),
    "access-control-ffx": ("shared", "common", "derived", "uploaded"),
}
"""Key mode, block scope, key lifetime and embedding as the design's table has them."""


def refusal(*assignments: str, file: Path | str | None = None, **overrides: object) -> str:
    with pytest.raises(InputError) as refused:
        load_config(file, assignments, overrides)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    return message


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_survive_dump_and_load(tmp_path: Path) -> None:
    config = load_config()
    assert config == Config()
    assert load_config(written(tmp_path, dump_config(config))) == config


def test_a_config_of_other_values_survives_dump_and_load(tmp_path: Path) -> None:
    config = load_config(
        assignments=[
            "data.root=/data/city scapes",
            "data.image_size=[48, 80]",
            "training.learning_rate=1e-5",
            "model.patch_size=null",
            "seeds=[3, 1]",
            "arms=[mine, plain]",
            "arm_table.mine={note: 'größer: #1', training: local-only}",
        ]
    )
    assert config.data.root == Path("/data/city scapes")
    assert config.training.learning_rate == 1e-5
    assert load_config(written(tmp_path, dump_config(config))) == config


@settings(max_examples=30)
@given(st.floats(1e-300, 1e300), st.integers(1, 10**6))
def test_numbers_survive_to_the_last_bit(rate: float, rounds: int) -> None:
    overrides = {"training.learning_rate": rate, "federation.num_rounds": rounds}
    config = load_config(overrides=overrides)
    assert validate(Config, yaml.safe_load(dump_config(config)), "dump") == config
    assert config.training.learning_rate == rate


def test_later_sources_win(tmp_path: Path) -> None:
    """Defaults, file, --set, options; an option that was not given (None) changes nothing."""
    path = written(tmp_path, "clients: 2\nname: file\nseeds: [5]\n")
    config = load_config(path, ["name=set", "clients=3"], {"clients": 4, "seeds": None})
    assert (config.clients, config.name, config.seeds) == (4, "set", (5,))
    assert config.engine == Config().engine


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("clinets=3", ["unknown key 'clinets'", "did you mean 'clients'?"]),
        ("model.xyzzy=3", ["unknown key 'model.xyzzy'", "possible:", "backbone", "decoder"]),
        ("arm_table.a={note: n, chipher: x}", ["'arm_table.a.chipher'", "did you mean 'cipher'?"]),
        ("arm_table.a={note: n, zzz: x}", ["'arm_table.a.zzz'", "possible: note", "key_mode"]),
        ("clients=many", ["clients", "integer", "got 'many'"]),
        ("clients=0", ["clients", "greater than 0", "got 0"]),
        ("data.image_size=[64]", ["data.image_size", "got [64]"]),
        ("model.decoder=fcn", ["model.decoder", "'naive', 'pup' or 'mla'", "got 'fcn'"]),
        ("model=vit", ["model", "got 'vit'"]),
        ("clients", ["--set 'clients'", "dotted.key=value"]),
        ("clients=[1", ["--set", "not YAML"]),
        ("name=2026-13-45", ["--set", "not YAML"]),
        ("arms=[plain, per-clinet]", ["unknown arm 'per-clinet'", "did you mean 'per-client'?"]),
        ("arms=[zzz]", ["unknown arm 'zzz'", "possible: plain"]),
        ("arms=[]", ["arms", "at least 1"]),
        ("arms=[plain, plain]", ["must not repeat"]),
        ("seeds=[1, 1]", ["must not repeat"]),
        ("federation.fraction_train=1.5", ["federation.fraction_train", "less than", "got 1.5"]),
        ("arm_table.a={key_mode: plain}", ["arm_table.a.note", "required", "got {'key_mode'"]),
    ],
)
def test_one_line_names_key_value_and_choices(assignment: str, said: list[str]) -> None:
    message = refusal(assignment)
    for part in said:
        assert part in message


def test_a_value_is_no_section() -> None:
    assert "name is a value, not a section" in refusal("name=x", "name.sub=1")


def test_the_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = written(tmp_path, "clinets: 3\n")
    assert refusal(file=path).startswith(f"{path}: unknown key 'clinets'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1\n- 2\n", "expected a mapping of keys, got list"),
        ("just words\n", "expected a mapping of keys, got str"),
        ("", "expected a mapping of keys, got NoneType"),
        ("a: [1\nb: }\n", "not YAML"),
        ("a: 2026-13-45\n", "not YAML"),
        ("1: 2\n", "1"),
    ],
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    message = refusal(file=path)
    assert said in message
    assert str(path) in message


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    missing = refusal(file=tmp_path / "nowhere.yaml")
    assert "no config" in missing
    assert "quick" in missing
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(file=binary)


COMMON = {"cipher": "shuffle", "block_scope": "common"}
SHARED = COMMON | {"key_mode": "shared", "key_lifetime": "derived"}
CLIENT = COMMON | {"key_mode": "per-client", "key_lifetime": "derived"}
IMAGE = COMMON | {"key_mode": "per-image", "key_lifetime": "disposable"}


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"cipher": "shuffle"}, "key_mode plain does not take cipher"),
        ({"block_scope": "common"}, "key_mode plain does not take cipher"),
        ({"key_mode": "per-client"}, "key_mode per-client needs cipher"),
        ({"key_mode": "per-image", "cipher": "shuffle"}, "needs cipher, block_scope and key_"),
        (CLIENT | {"key_lifetime": "disposable"}, "cannot be disposable"),
        (SHARED | {"key_lifetime": "disposable"}, "cannot be disposable"),
        (CLIENT | {"training": "centralised"}, "centralised has no clients"),
        (IMAGE | {"embedding": "private"}, "cannot be adapted to a disposable key"),
        (
            CLIENT | {"embedding": "private", "block_scope": "per-block"},
            "adapted to one key per block",
        ),
        (CLIENT | {"embedding": "adapted"}, "can serve one shared key only"),
        (SHARED | {"embedding": "private"}, "key_mode per-client"),
        ({"embedding": "invariant"}, "give key_mode and cipher"),
        (CLIENT | {"private_rate": 0.1}, "belong to a private embedding"),
        (CLIENT | {"private_start": "random"}, "belong to a private embedding"),
        (CLIENT | {"embedding": "private", "private_start": "random"}, "must be trained"),
        (CLIENT | {"encrypted": "queries"}, "key_mode shared, embedding uploaded"),
        (SHARED | {"encrypted": "queries", "embedding": "adapted"}, "key_mode shared, embedding"),
        ({"key_mode": "shared-by-all"}, "'plain', 'shared', 'per-client' or 'per-image'"),
    ],
)
def test_arms_that_contradict_themselves_are_refused(arm: dict[str, object], said: str) -> None:
    message = refusal(**{"arm_table": {"mine": arm | {"note": "a try"}}})
    assert "arm_table.mine" in message
    assert said in message


@pytest.mark.parametrize(
    "arm",
    [
        SHARED | {"training": "centralised"},
        SHARED | {"training": "centralised", "embedding": "adapted"},
        SHARED | {"encrypted": "queries"},
        IMAGE | {"training": "centralised"},
        IMAGE | {"embedding": "invariant", "block_scope": "per-block"},
        CLIENT | {"embedding": "private", "private_start": "random", "private_rate": 1.0},
        CLIENT | {"embedding": "invariant"},
    ],
)
def test_arms_that_are_consistent_are_taken(arm: dict[str, object]) -> None:
    config = load_config(overrides={"arm_table": {"mine": arm | {"note": "a try"}}})
    assert config.arm_table["mine"].model_dump(include=set(arm)) == arm


def test_own_arms_come_beside_the_built_in_ones_and_in_the_config_s_order() -> None:
    config = load_config(
        assignments=["arm_table.mine={note: my own}", "arms=[mine, per-image, plain]"]
    )
    arms = arms_of(config)
    assert list(arms) == ["mine", "per-image", "plain"]
    assert arms["mine"].note == "my own"
    assert arms["per-image"] == builtin_arms()["per-image"]


def test_a_config_cannot_be_changed() -> None:
    config = load_config()
    for section, field in ((config, "clients"), (config.model, "depth")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, 1)


def test_every_section_is_covered_here() -> None:
    own = {s for s in Section.__subclasses__() if s.__module__.startswith("fl_ppseg.config")}
    assert set(SECTIONS) == own


def leaves(section: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            yield name, field


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_line_of_doc(section: type[Section]) -> None:
    assert section.__doc__
    silent = [name for name, field in leaves(section) if not field.description]
    assert silent == []


def test_the_built_in_arms_are_those_of_the_design() -> None:
    arms = builtin_arms()
    assert arms["plain"] == ArmConfig(note=arms["plain"].note)
    found = {
        name: (arm.key_mode, arm.block_scope, arm.key_lifetime, arm.embedding)
        for name, arm in arms.items()
    }
    assert found == DESIGNED_ARMS
    training = {name: arm.training for name, arm in arms.items() if arm.training != "federated"}
    assert training == {"centralised": "centralised", "local-only": "local-only"}
    assert [name for name, arm in arms.items() if arm.encrypted == "queries"] == ["conventional-1"]


@pytest.mark.parametrize(
    "server",
    [
        {"server_learning_rate": 1.5},
        {"strategy": "fedavgm"},
        {"strategy": "fedadam"},
        {"aggregation": "median"},
    ],
)
def test_a_centralised_arm_sees_as_many_images_as_the_federation_and_meets_no_server(
    server: dict[str, Any],
) -> None:
    federation = {"fraction_train": 0.08, **server}  # of 18 clients one
    config = Config.model_validate(
        {"federation": federation, "training": {"pass_fraction": 0.5}, "clients": 18}
    )
    arms = builtin_arms()
    assert config_for(config, arms["plain"]) == config
    assert config_for(config, arms["local-only"]) == config
    alone = config_for(config, arms["centralised"])
    assert alone.training.pass_fraction == 0.5 / 18
    assert (alone.federation.strategy, alone.federation.aggregation) == ("fedavg", "mean")
    assert alone.federation.server_rate == 1.0


def test_an_own_arm_may_take_the_place_of_a_built_in_one() -> None:
    config = load_config(assignments=["arm_table.plain={note: mine, training: centralised}"])
    assert arms_of(config)["plain"].training == "centralised"
    assert arms_of(config)["per-image"] == builtin_arms()["per-image"]


@pytest.mark.parametrize("rounds", [1, 2, 7, 10])
@pytest.mark.parametrize("every", [1, 3, 20])
@pytest.mark.parametrize("last", [1, 3, 12])
def test_the_last_rounds_are_evaluated_and_every_so_many(
    rounds: int, every: int, last: int
) -> None:
    federation = FederationConfig(num_rounds=rounds, evaluate_every=every, last_rounds=last)
    numbers = range(1, rounds + 1)
    expected = {n for n in numbers if n % every == 0} | {*numbers[-last:]}
    assert {n for n in numbers if federation.is_evaluated(n)} == expected
    assert federation.num_evaluations == 1 + len(expected)
    assert federation.first_scored == numbers[-last:][0]


@pytest.mark.parametrize("name", [*sorted(TAKEN), "Nodes.json"])
def test_no_arm_is_called_as_what_else_lies_in_a_run_folder(name: str) -> None:
    with pytest.raises(ValueError, match="is reserved in a run folder"):
        TypeAdapter(ArmId).validate_python(name)
