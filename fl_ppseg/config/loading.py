"""From YAML, `key=value`s and options to a validated config; every error is one line."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.checksum import read_checked, with_checksum
from fl_ppseg.config.documents import parse_yaml, read_yaml
from fl_ppseg.config.sections import Config
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.installation import of_root

MAX_SHOWN = 200
"""Characters of a wrong value that an error shows."""
SectionT = TypeVar("SectionT", bound=BaseModel)


def validate(section: type[SectionT], values: object, source: str) -> SectionT:
    """Build a section from plain values.

    Raises:
        InputError: One line naming the first wrong key, the value got and what was expected.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source}: expected a mapping of keys, got {type(values).__name__}")
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(section, error)}") from None


def parse_model(section: type[SectionT], content: str | bytes, source: str) -> SectionT:
    """Build a section from JSON, which a strict one takes from no plain values.

    Raises:
        InputError: One line with the first thing that does not fit.
    """
    try:
        return section.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        what = " ".join(f"{where}: {message}".split()).removeprefix(": ")[:300]
        raise InputError(f"{source}: {what}") from None


def load_config(
    file: str | Path | None = None,
    assignments: Iterable[str] = (),
    overrides: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Config:
    """The config of `read_values`.

    Raises:
        InputError: For a missing file, broken YAML, or a wrong key or value.
    """
    values = read_values(file, assignments, overrides, defaults)
    return config_of(values, "config" if file is None else str(file))


def read_values(
    file: str | Path | None = None,
    assignments: Iterable[str] = (),
    overrides: Mapping[str, object] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Defaults, then a YAML file or named experiment, then `key=value`s, then a command's options.

    Args:
        file: Path of a YAML file, or the name of one in configs/ without its ending.
        assignments: `dotted.key=value`, the value in YAML.
        overrides: Dotted keys to values that were given as options; None values are left out.
        defaults: Dotted keys to a command's own defaults; None values are left out.

    Returns:
        The values that were given, by section and not validated.

    Raises:
        InputError: For a missing file or broken YAML.
    """
    values: dict[str, Any] = {}
    for key, value in (defaults or {}).items():
        if value is not None:
            assign(values, key, value)
    if file is not None:
        _overlay(values, _mapping(read_checked(_find(file)), file))
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r}: expected dotted.key=value")
        assign(values, key.strip(), parse_yaml(value, f"--set {text!r}"))
    for key, given in (overrides or {}).items():
        if given is not None:
            assign(values, key, given)
    return values


def config_of(values: Mapping[str, Any], source: str) -> Config:
    """Validate a whole config, its arms included.

    Args:
        values: By section, as a YAML file has them.
        source: What an error names.

    Raises:
        InputError: For a wrong key or value.
    """
    config = validate(Config, values, source)
    try:
        _check_summed(config)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return config


def _check_summed(config: Config) -> None:
    """Check that all arms exist, and have sums where the federation is to see sums alone.

    Raises:
        InputError: They do not.
    """
    for name, arm in arms_of(config).items():
        if config.federation.secure_aggregation and arm.training != "federated":
            raise InputError(
                f"federation.secure_aggregation: arm {name} ({arm.training}) adds nothing up; "
                "leave it out of arms, or compare it in a run without secure_aggregation"
            )


def dump_config(config: Config) -> str:
    """The whole config as YAML that `load_config` reads back to the same, with a checksum."""
    return with_checksum(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def arms_of(config: Config) -> dict[str, ArmConfig]:
    """The settings of the arms that a config compares, in its order.

    Raises:
        InputError: If no arm has one of the ids.
    """
    table = builtin_arms() | config.arm_table
    for arm_id in config.arms:
        if arm_id not in table:
            raise InputError(f"unknown arm {arm_id!r}{_choices(arm_id, table)}")
    return {arm_id: table[arm_id] for arm_id in config.arms}


def config_for(config: Config, arm: ArmConfig) -> Config:
    """What an arm reads of a config that it shares with others.

    A centralised arm is one client that is asked in every round. So that it trains on as many
    images as the federation, a pass sees the share of them that a round asks for, and no server
    step is applied to its weights, which are not a mean of anything. Arms that average nothing send
    and get their weights as they are, whatever codecs federated arms use. Nor are weights
    coded whose embedding is adapted to a key: owners have the public one of round 0.
    """
    exact = {} if arm.training == "federated" else {"codec": "fp32", "weights_codec": "fp32"}
    if arm.embedding == "adapted":
        exact["weights_codec"] = "fp32"
    if exact:
        training = config.training.model_copy(update=exact)
        config = config.model_copy(update={"training": training})
    if arm.training != "centralised":
        return config
    asked = config.federation.num_asked(config.clients) / config.clients
    share = config.training.pass_fraction * asked
    server = {"strategy": "fedavg", "server_learning_rate": None, "aggregation": "mean"}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update={"pass_fraction": share}),
            "federation": config.federation.model_copy(update=server),
        }
    )


def described(config: Config) -> dict[str, Any]:
    """The config as plain values, its arms with their settings and notes."""
    arms = {name: arm.model_dump(mode="json") for name, arm in arms_of(config).items()}
    return config.model_dump(mode="json") | {"arm_table": arms}


def builtin_arms() -> dict[str, ArmConfig]:
    """The arms of configs/arms.yaml by id."""
    return dict(_arms_in(configs_dir() / "arms.yaml"))


def assign(values: dict[str, Any], dotted: str, value: object) -> None:
    """Set one value by its dotted key, making the sections on the way.

    Raises:
        InputError: If a section of the key is a value.
    """
    *sections, key = dotted.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"{dotted}: {section} is a value, not a section")
    values[key] = value


def configs_dir() -> Path:
    """Where the named experiments lie."""
    return of_root("configs")


@cache
def _arms_in(path: Path) -> dict[str, ArmConfig]:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of arm ids")
    return {
        str(name): validate(ArmConfig, value, f"{path}: {name}") for name, value in values.items()
    }


def _find(file: str | Path) -> Path:
    path = Path(file)
    named = configs_dir() / f"{file}.yaml"
    if path.is_file():
        return path
    if named.is_file() and path.name == str(file):
        return named
    known = sorted(p.stem for p in configs_dir().glob("*.yaml") if p.stem != "arms")
    raise InputError(f"no config {str(file)!r}: give a YAML file or one of {', '.join(known)}")


def _mapping(values: object, source: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected a mapping of keys, got {type(values).__name__}")
    for key in values:
        if not isinstance(key, str):
            raise InputError(f"{source}: key {key!r} is not the name of a setting")
    return values


def _overlay(values: dict[str, Any], upper: Mapping[str, Any]) -> None:
    """Lay a file's keys over values, section by section."""
    for key, value in upper.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _overlay(values[key], value)
        else:
            values[key] = value


def _explain(section: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)[:MAX_SHOWN] or section.__name__
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_choices(location[-1], _fields(section, location[:-1]))}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message}, got {_shown(first['input'])}"


def _shown(value: object) -> str:
    """A value as an error has room for it."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"


def _fields(section: type[BaseModel], location: Iterable[str]) -> Iterable[str]:
    for part in location:
        inner = section.model_fields[part].annotation if part in section.model_fields else None
        for kind in (inner, *get_args(inner)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                section = kind
    return section.model_fields


def _choices(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; possible: {', '.join(known)}"
