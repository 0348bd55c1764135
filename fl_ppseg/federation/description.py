"""What a checkpoint's .json says of its tensors, as a type: written and read here alone.

Whoever wrote the file, what is read is held to bounds. Entries that it lacks are not written into
it either: a run that goes on writes the same bytes as the version that began it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.bounds import ImageSize, Seed
from fl_ppseg.config.loading import validate
from fl_ppseg.config.names import ArmId
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.data.manifest import CipherName, Version

ClassName = Annotated[str, Field(min_length=1, max_length=200)]


class Description(Section):
    """What a checkpoint's .json says of its tensors."""

    arm: ArmId
    """The arm that was trained."""
    seed: Seed
    """Seed of the training."""
    model: ModelConfig
    """Section `model`, with the patch size that it came to."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=256)]
    """Names by trainId."""
    image_size: ImageSize
    """(height, width) of the model's input, in pixels."""
    fit: Literal["resize", "crop"]
    """How an image of another size is brought to image_size."""
    protection: ArmConfig
    """How the arm protects images."""
    ciphers: Annotated[dict[CipherName, Version], Field(max_length=8)] = Field(default_factory=dict)
    """Version of each cipher that the arm encrypts by; earlier versions wrote none."""
    settings: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the settings of the run; earlier versions wrote none."""

    @property
    def patch_size(self) -> int:
        """Side of a patch and of a cipher block, in pixels."""
        assert self.model.patch_size is not None  # the validator below
        return self.model.patch_size

    @field_validator("model")
    @classmethod
    def _patch_size_is_given(cls, model: ModelConfig) -> ModelConfig:
        if model.patch_size is None:
            raise ValueError("expected the patch_size that the model came to, got none")
        return model

    def to_values(self) -> dict[str, Any]:
        """The entries of the .json, as plain values: those that were given."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse_description(values: Mapping[str, Any], source: str) -> Description:
    """The description in the plain values of a .json.

    Args:
        values: Its entries.
        source: What an error names.

    Raises:
        InputError: They describe no model, or are out of bounds.
    """
    return validate(Description, values, source)
