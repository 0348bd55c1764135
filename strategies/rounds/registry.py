"""The registry: Flower's random node ids, mapped to the clients that the nodes introduce."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import RunError


class RegistrationError(RunError):
    """A node introduces itself as a client or role that it may not have."""


@dataclass(frozen=True)
class Member:
    """One node of the federation."""

    node_id: int
    client: str
    role: Role


class Registry:
    """The node of each client, sorted by client so that nothing depends on Flower's node ids."""

    def __init__(
        self, members: Iterable[Member] = (), expected: Mapping[str, Role] | None = None
    ) -> None:
        """Start with some members.

        Args:
            members: Nodes that are registered already.
            expected: Role of each client of the run; None: any client may register.
        """
        self._by_client = {member.client: member for member in members}
        self._expected = expected

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, by client."""
        return tuple(self._by_client[client] for client in sorted(self._by_client))

    @property
    def node_ids(self) -> frozenset[int]:
        """Node ids of all members."""
        return frozenset(member.node_id for member in self._by_client.values())

    def with_role(self, role: Role) -> tuple[Member, ...]:
        """Members that train, or that only evaluate (`val`)."""
        return tuple(member for member in self.members if member.role == role)

    def of_client(self, client: str) -> Member:
        """The current member of a client: its node id may have changed."""
        return self._by_client[client]

    def find(self, client: str) -> Member | None:
        """The current member of a client; None if it has not registered."""
        return self._by_client.get(client)

    def register(
        self, node_id: int, description: Description, connected: Collection[int], enrolled: str = ""
    ) -> Member | None:
        """Register a node that has introduced itself as the node of its client.

        A client may register another node only after its earlier node has disconnected.

        Args:
            node_id: Flower's id of the node.
            description: Its introduction.
            connected: Ids of the nodes that are connected.
            enrolled: The name under which the coordinator enrolled the node's key; "": none.

        Returns:
            The earlier member of the client; None for a new client.

        Raises:
            RegistrationError: The client has another connected node, the node is enrolled under
                another name, or client or role are not of this run.
        """
        client = description.client
        if enrolled and enrolled != client:
            raise RegistrationError(f"a node enrolled as {enrolled} introduced itself as {client}")
        if self._expected is not None:
            self._check_expected(description, self._expected)
        before = self._by_client.get(client)
        if before is not None and before.node_id != node_id and before.node_id in connected:
            raise RegistrationError(
                f"a second node introduced itself as {client}; the first one is kept"
            )
        if before is not None and before.role != description.role:
            raise RegistrationError(
                f"{client}: expected role {before.role}, got {description.role}"
            )
        self._by_client[client] = Member(node_id, client, description.role)
        return before

    @staticmethod
    def _check_expected(description: Description, expected: Mapping[str, Role]) -> None:
        client = description.client
        if client not in expected:
            raise RegistrationError(
                f"{client} is not one of the {len(expected)} clients in clients.json of this run"
            )
        if expected[client] != description.role:
            raise RegistrationError(
                f"{client}: expected a node with role {expected[client]} as in clients.json, got "
                f"one prepared with role {description.role}"
            )
