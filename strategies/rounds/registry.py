"""The registry: Flower's random node ids, mapped to the cities that the nodes introduce."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import RunError


class RegistrationError(RunError):
    """A node introduces itself as a city or role that it may not have."""


@dataclass(frozen=True)
class Member:
    """One node of the federation."""

    node_id: int
    city: str
    role: Role


class Registry:
    """The node of each city, sorted by city so that nothing depends on Flower's node ids."""

    def __init__(
        self, members: Iterable[Member] = (), expected: Mapping[str, Role] | None = None
    ) -> None:
        """Start with some members.

        Args:
            members: Nodes that are registered already.
            expected: Role of each city of the run; None: any city may register.
        """
        self._by_city = {member.city: member for member in members}
        self._expected = expected

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, by city."""
        return tuple(self._by_city[city] for city in sorted(self._by_city))

    @property
    def node_ids(self) -> frozenset[int]:
        """Node ids of all members."""
        return frozenset(member.node_id for member in self._by_city.values())

    def with_role(self, role: Role) -> tuple[Member, ...]:
        """Members that train, or that only evaluate (`val`)."""
        return tuple(member for member in self.members if member.role == role)

    def of_city(self, city: str) -> Member:
        """The current member of a city: its node id may have changed."""
        return self._by_city[city]

    def register(
        self, node_id: int, description: Description, connected: Collection[int], enrolled: str = ""
    ) -> Member | None:
        """Register a node that has introduced itself as the node of its city.

        A city may register another node only after its earlier node has disconnected.

        Args:
            node_id: Flower's id of the node.
            description: Its introduction.
            connected: Ids of the nodes that are connected.
            enrolled: The name under which the coordinator enrolled the node's key; "": none.

        Returns:
            The earlier member of the city; None for a new city.

        Raises:
            RegistrationError: The city has another connected node, the node is enrolled under
                another name, or city or role are not of this run.
        """
        city = description.city
        if enrolled and enrolled != city:
            raise RegistrationError(f"a node enrolled as {enrolled} introduced itself as {city}")
        if self._expected is not None:
            self._check_expected(description, self._expected)
        before = self._by_city.get(city)
        if before is not None and before.node_id != node_id and before.node_id in connected:
            raise RegistrationError(
                f"a second node introduced itself as {city}; the first one is kept"
            )
        if before is not None and before.role != description.role:
            raise RegistrationError(f"{city}: expected role {before.role}, got {description.role}")
        self._by_city[city] = Member(node_id, city, description.role)
        return before

    @staticmethod
    def _check_expected(description: Description, expected: Mapping[str, Role]) -> None:
        city = description.city
        if city not in expected:
            raise RegistrationError(
                f"{city} is not one of the {len(expected)} cities in cities.json of this run"
            )
        if expected[city] != description.role:
            raise RegistrationError(
                f"{city}: expected a node with role {expected[city]} as in cities.json, got one "
                f"prepared with role {description.role}"
            )
