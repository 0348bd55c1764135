"""The types of settings, each with bounds: wide enough for any use, and too small to do harm.

A config may come from others, and a request's settings do. What is built of them (layers, threads,
views) is bounded here, one by one; what they come to together by `fl_ppseg.setr.sizes`.
"""

from typing import Annotated, Any, Final

from pydantic import Field

MAX_SIDE: Final = 8_192
"""Pixels of an image's side: four times Cityscapes'."""


def up_to(most: int) -> Any:
    """A whole number from 1 to `most`."""
    return Field(gt=0, le=most)


Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Side = Annotated[int, up_to(MAX_SIDE)]
ImageSize = tuple[Side, Side]
Clients = Annotated[int, up_to(10_000)]
Count = Annotated[int, up_to(1_000_000)]
"""Of scenes."""
Rounds = Annotated[int, up_to(1_000_000)]
Text = Annotated[str, Field(max_length=4_096)]
