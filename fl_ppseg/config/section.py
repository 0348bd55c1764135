"""What all sections of a config have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, finite numbers, docs of the fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys of earlier versions, which are refused, and what they are called now."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_renamed(cls, values: Any) -> Any:
        for old, new in cls.renamed.items():
            if isinstance(values, Mapping) and old in values:
                raise ValueError(f"{old} is now called {new}: rename this key")
        return values
