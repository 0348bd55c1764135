"""What the messages of secure aggregation say, as JSON: bounded, and of one form each."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from fl_ppseg.config.names import ClientName
from fl_ppseg.config.section import Section
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.node import Sealed
from fl_ppseg.secure_sum.roster import MAX_CLIENTS, Roster

Clients = Annotated[tuple[ClientName, ...], Field(max_length=MAX_CLIENTS)]
Weighting = Literal["examples", "equal"]
SectionT = TypeVar("SectionT", bound=Section)


class ShareContent(Section):
    """To `share`: who takes part."""

    roster: Roster


class TrainContent(Section):
    """To `train`: who sent shares, and how an update becomes numbers."""

    roster: Roster
    members: Clients
    """Sorted."""
    exponent: int
    """log2 of the ring's step, which the node computes itself as well."""
    weighting: Weighting


class UnmaskContent(Section):
    """To `unmask`: whose updates were added, and what the peers sealed for this node."""

    roster: Roster
    survivors: Clients
    """Sorted."""
    shares: Annotated[Mapping[ClientName, Sealed], Field(repr=False)]
    """By the client that dealt them."""


def parse(kind: type[SectionT], text: str) -> SectionT:
    """The content of a message.

    Raises:
        SumError: It is of another form; the text holds nothing of it.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = [str(part)[:40] for part in first["loc"][:3] if first["type"] != "extra_forbidden"]
        message = ": ".join([f"expected a {kind.__name__}", *where, first["msg"][:100]])
        raise SumError(message) from None
