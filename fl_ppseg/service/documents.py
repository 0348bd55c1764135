"""The JSON of the service, as its OpenAPI description has it."""

from typing import Annotated

from pydantic import Field

from fl_ppseg.config.section import Section
from fl_ppseg.inference.query_spec import QuerySpec

Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
"""Red, green, blue."""
Point = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]


class Detail(Section):
    """Why there is no answer."""

    detail: str
    """One line for a person."""


class State(Section):
    """That the service runs, or is ready."""

    status: str


class ClassEntry(Section):
    """One class of the model."""

    name: str
    train_id: Byte
    """Its value in label maps."""
    colour: Colour


class Bounds(Section):
    """What a request may have at most."""

    max_bytes: int
    """Of its body."""
    max_pixels: int
    """Of its image, and of the answer."""


class ModelDocument(Section):
    """All that one needs to make a query and to read the answer."""

    name: str
    version: str
    """Of this program."""
    query: QuerySpec
    classes: list[ClassEntry]
    """By train_id."""
    limits: Bounds
    reconstruct: bool
    """Whether `/v1/reconstruct` shows what an attacker's network makes of a ciphertext."""


class Ring(Section):
    """A closed line; its last point is joined to its first."""

    hole: bool
    """Whether it is the border of a hole in a region."""
    points: list[Point]
    """[x, y] in pixels from the top left corner."""


class ClassPolygons(Section):
    """The regions of a class; the even-odd rule over all rings fills them."""

    train_id: Byte
    name: str
    colour: Colour
    rings: list[Ring]


class Polygons(Section):
    """The answer `polygons`."""

    height: int
    width: int
    classes: list[ClassPolygons]
    """Those that occur."""
