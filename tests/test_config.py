"""The one source of configuration: what it takes, and what it says when it takes it not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fl_ppseg.config import (
    ArmConfig,
    Config,
    DataConfig,
    FederationConfig,
    ModelConfig,
    PartitionConfig,
    Section,
    TrainingConfig,
    arms_of,
    builtin_arms,
    configs_dir,
    dump_config,
    load_config,
    validate,
)
from fl_ppseg.errors import InputError

SECTIONS = (
    Config,
    ArmConfig,
    DataConfig,
    FederationConfig,
    ModelConfig,
    PartitionConfig,
    TrainingConfig,
)
DESIGNED_ARMS = {
    "plain",
    "plain-frozen-embedding",
    "centralised",
    "local-only",
    "per-client",
    "per-image",
    "per-image-per-block",
    "per-client-private",
    "per-image-invariant",
    "conventional-1",
    "conventional-2",
    "domain-adaptation",
    "access-control-shf",
    "access-control-np",
    "access-control-ffx",
}
FIRST_ARMS = {"plain", "centralised", "local-only", "per-client", "per-image"}


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


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-300, 1e300), st.integers(1, 10**12))
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
        ("arms=[plain, plain]", ["named once"]),
        ("seeds=[1, 1]", ["named once"]),
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
        ("- 1\n- 2\n", "wanted a mapping of keys, got list"),
        ("just words\n", "wanted a mapping of keys, got str"),
        ("", "wanted a mapping of keys, got NoneType"),
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


ENCRYPTED = {"cipher": "shuffle", "block_scope": "common", "key_lifetime": "derived"}


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"cipher": "shuffle"}, "key_mode plain takes no cipher"),
        ({"block_scope": "common"}, "key_mode plain takes no cipher"),
        ({"key_mode": "per-client"}, "key_mode per-client needs cipher"),
        ({"key_mode": "per-image", "cipher": "shuffle"}, "needs cipher, block_scope and key_"),
        (
            ENCRYPTED | {"key_mode": "per-client", "key_lifetime": "disposable"},
            "cannot be disposable",
        ),
        (
            ENCRYPTED | {"key_mode": "per-client", "training": "centralised"},
            "centralised has no clients",
        ),
        ({"key_mode": "shared-by-all"}, "'plain', 'per-client' or 'per-image'"),
    ],
)
def test_arms_that_contradict_themselves_are_refused(arm: dict[str, str], said: str) -> None:
    message = refusal(**{"arm_table": {"mine": arm | {"note": "a try"}}})
    assert "arm_table.mine" in message
    assert said in message


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


NAMED = sorted(path.stem for path in configs_dir().glob("*.yaml") if path.stem != "arms")


@pytest.mark.parametrize("name", NAMED)
def test_every_named_experiment_loads_by_name_and_by_path(name: str) -> None:
    config = load_config(name)
    assert config == load_config(configs_dir() / f"{name}.yaml")
    assert config.name == name
    assert set(arms_of(config)) == set(config.arms)


def test_the_built_in_arms_are_those_of_the_design() -> None:
    arms = builtin_arms()
    assert set(arms) >= FIRST_ARMS
    assert set(arms) <= DESIGNED_ARMS
    assert arms["plain"] == ArmConfig(note=arms["plain"].note)
    for name, arm in arms.items():
        encrypted = name.startswith(("per-client", "per-image"))
        assert (arm.key_mode != "plain") == encrypted
        assert (arm.cipher is not None) == encrypted
        if encrypted:
            assert name.startswith(arm.key_mode)
            scopes = get_args(ArmConfig.model_fields["block_scope"].annotation)
            assert arm.block_scope in get_args(scopes[0])
    assert arms["per-client"].key_lifetime == "derived"
    assert arms["per-image"].key_lifetime == "disposable"
    assert arms["local-only"].training == "local-only"
    assert arms["centralised"].training == "centralised"
