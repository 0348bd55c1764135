"""Who is there: Flower's random node ids, mapped to the cities that the nodes name themselves."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fl_ppseg.errors import RunError
from fl_ppseg.messages import MessageError, Request, Role, pack_request, unpack_description


@dataclass(frozen=True)
class Member:
    """One node of the federation."""

    node_id: int
    city: str
    role: Role


class Roster:
    """The nodes of a run, sorted by city so that nothing depends on Flower's node ids."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = tuple(sorted(members, key=lambda member: member.city))

    def with_role(self, role: Role) -> tuple[Member, ...]:
        """Members that train, or that only evaluate (`val`)."""
        return tuple(member for member in self.members if member.role == role)


def call_roll(grid: Grid, request: Request, num_nodes: int, timeout: float) -> Roster:
    """Wait for the nodes of a run and ask each for its city and role.

    Args:
        grid: Where the nodes are.
        request: A `describe` request of this run.
        num_nodes: Nodes to wait for.
        timeout: Seconds to wait, for the nodes and again for their answers.

    Raises:
        RunError: If nodes are missing, do not answer, or two name the same city.
    """
    node_ids = _wait_for_nodes(grid, num_nodes, timeout)
    question = pack_request(request)
    messages = [Message(question, node, MessageType.QUERY, ttl=timeout) for node in node_ids]
    members = []
    for reply in grid.send_and_receive(messages, timeout=timeout):
        if reply.has_error():
            raise RunError(f"a node did not introduce itself: {reply.error.reason}")
        try:
            description = unpack_description(reply.content)
        except MessageError as error:
            raise RunError(f"a node introduced itself in another form: {error}") from None
        if description.run_id != request.run_id:
            raise RunError("a node introduced itself to another run")
        node_id = reply.metadata.src_node_id
        members.append(Member(node_id, description.city, description.role))
    if len(members) < num_nodes:
        raise RunError(f"{len(members)} of {num_nodes} nodes answered within {timeout:.0f} s")
    cities = [member.city for member in members]
    if len(set(cities)) < len(cities):
        twice = sorted({city for city in cities if cities.count(city) > 1})
        raise RunError(f"two nodes claim the same city: {', '.join(twice)}")
    return Roster(members)


def _wait_for_nodes(grid: Grid, num_nodes: int, timeout: float) -> list[int]:
    end = time.monotonic() + timeout
    while len(node_ids := list(grid.get_node_ids())) < num_nodes:
        if time.monotonic() >= end:
            raise RunError(
                f"{len(node_ids)} of {num_nodes} nodes connected within {timeout:.0f} s; "
                "start the others or ask for fewer"
            )
        time.sleep(0.1)
    return sorted(node_ids)
