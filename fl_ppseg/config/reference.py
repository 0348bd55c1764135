"""The settings of a config one by one: what each is, what it may be, what it is by default."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fl_ppseg.config.sections import Config

REQUIRED: Final = "(required)"
"""Stands for the default of a setting that has none."""
TYPES: Final = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
"""By the names of JSON Schema."""
BOUNDS: Final = {
    "exclusiveMinimum": "> {}",
    "minimum": ">= {}",
    "exclusiveMaximum": "< {}",
    "maximum": "<= {}",
    "minLength": "{} characters or more",
    "maxLength": "up to {} characters",
    "minItems": "{} or more",
    "maxItems": "up to {}",
    "maxProperties": "up to {}",
}
"""By the keywords of JSON Schema, in words."""


class Setting(NamedTuple):
    """A key of a config."""

    key: str
    """Dotted, as `--set` takes it; `<id>` stands for a name of one's own."""
    type: str
    default: str
    """In JSON, as YAML reads it; `REQUIRED` where there is none."""
    bounds: str
    """Empty where every value of the type will do."""
    doc: str


def settings() -> list[Setting]:
    """All settings of a config, in the order of its sections.

    >>> [s.default for s in settings() if s.key == "federation.num_rounds"]
    ['10']
    """
    return list(_settings(Config, Config().model_dump(mode="json"), ""))


def _settings(
    section: type[BaseModel], defaults: Mapping[str, Any] | None, prefix: str
) -> Iterator[Setting]:
    """Settings of a section; defaults of None: those of its fields."""
    schemas = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        given = field.get_default(call_default_factory=True) if defaults is None else defaults[name]
        inner = _section(field.annotation)
        if inner is None or not isinstance(given, Mapping):
            yield _setting(prefix + name, field, schemas[name], given)
        if inner is not None:
            own = given if field.annotation is inner else None
            below = "<id>." if schemas[name].get("type") == "object" else ""
            yield from _settings(inner, own, f"{prefix}{name}.{below}")


def _section(annotation: object) -> type[BaseModel] | None:
    """The section that a setting is, may be, or holds by name."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _setting(key: str, field: FieldInfo, schema: Mapping[str, Any], default: object) -> Setting:
    told = REQUIRED if field.is_required() else json.dumps(default, ensure_ascii=False)
    doc = " ".join((field.description or "").split())
    return Setting(key, _type(schema), told, "; ".join(dict.fromkeys(_bounds(schema))), doc)


def _type(schema: Mapping[str, Any]) -> str:
    """The type that a JSON Schema describes, in words."""
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "$ref" in schema:
        return "section"
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_type(schema['prefixItems'][0])}"
    if schema.get("type") == "array":
        return f"list of: {_type(schema['items'])}"
    if schema.get("type") == "object":
        return "mapping"
    return TYPES[schema["type"]] if "type" in schema else "any value"


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    """The bounds of a value and of what it holds."""
    for word, text in BOUNDS.items():
        if word in schema and not ("prefixItems" in schema and word.endswith("Items")):
            yield text.format(schema[word])
    inner = schema.get("items")
    for each in (*schema.get("anyOf", ()), *schema.get("prefixItems", ()), inner):
        if isinstance(each, Mapping):
            yield from _bounds(each)
