"""What the messages of secure aggregation say, as JSON: bounded, and of one form each."""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from fl_ppseg.config.names import ClientName
from fl_ppseg.config.section import Section
from fl_ppseg.secure_sum.confirmation import Sets
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.node import Sealed
from fl_ppseg.secure_sum.roster import MAX_CLIENTS, Roster, Signature

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


class ConfirmContent(Section):
    """To `confirm`: who was asked for updates, and whose were added."""

    roster: Roster
    members: Clients
    survivors: Clients

    @property
    def sets(self) -> Sets:
        """Both together."""
        return Sets(self.members, self.survivors)


class Confirmed(Section):
    """A node's answer to `confirm`."""

    signature: Signature


class UnmaskContent(ConfirmContent):
    """To `unmask`: also who has signed that, and what the peers sealed for this node."""

    signatures: Annotated[Mapping[ClientName, Signature], Field(max_length=MAX_CLIENTS)]
    """Answers to `confirm`, by client."""
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
        where = [str(part) for part in first["loc"][:1] if part in kind.model_fields]
        message = ": ".join([f"expected a {kind.__name__}", *where, first["type"]])
        raise SumError(message) from None
