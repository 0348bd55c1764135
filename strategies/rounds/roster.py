"""Who is there: Flower's random node ids, mapped to the cities that the nodes name themselves."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import RunError


class TakenError(RunError):
    """A node that names a city which it cannot have."""


@dataclass(frozen=True)
class Member:
    """One node of the federation."""

    node_id: int
    city: str
    role: Role


class Roster:
    """The node of each city, sorted by city so that nothing depends on Flower's node ids."""

    def __init__(
        self, members: Iterable[Member] = (), expected: Mapping[str, Role] | None = None
    ) -> None:
        """Begin with some members.

        Args:
            members: Who is there.
            expected: Role of each city of the run; none: whoever comes is of it.
        """
        self._by_city = {member.city: member for member in members}
        self._expected = expected

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, by city."""
        return tuple(self._by_city[city] for city in sorted(self._by_city))

    @property
    def node_ids(self) -> frozenset[int]:
        """The nodes of all members."""
        return frozenset(member.node_id for member in self._by_city.values())

    def with_role(self, role: Role) -> tuple[Member, ...]:
        """Members that train, or that only evaluate (`val`)."""
        return tuple(member for member in self.members if member.role == role)

    def of_city(self, city: str) -> Member:
        """The member that a city has now: its node may be another than before."""
        return self._by_city[city]

    def admit(
        self, node_id: int, description: Description, present: Collection[int], enrolled: str = ""
    ) -> Member | None:
        """Take a node that has introduced itself as that of its city.

        A city whose node is gone may come back as another node; one whose node is there may not.

        Args:
            node_id: Flower's id of the node.
            description: What it says of itself.
            present: Ids of the nodes that are connected.
            enrolled: The name under which the coordinator enrolled the node's key; "": none.

        Returns:
            The node that the city had before; None for a new city.

        Raises:
            TakenError: If another node has the city, its name is not its own, or city or role are
                not of this run.
        """
        city = description.city
        if enrolled and enrolled != city:
            raise TakenError(f"a node that was enrolled as {enrolled} claims to be {city}")
        if self._expected is not None:
            self._check_expected(description, self._expected)
        before = self._by_city.get(city)
        if before is not None and before.node_id != node_id and before.node_id in present:
            raise TakenError(f"a second node claims {city}; the first keeps it")
        if before is not None and before.role != description.role:
            raise TakenError(f"{city} was to {before.role} and comes back to {description.role}")
        self._by_city[city] = Member(node_id, city, description.role)
        return before

    @staticmethod
    def _check_expected(description: Description, expected: Mapping[str, Role]) -> None:
        city = description.city
        if city not in expected:
            raise TakenError(
                f"{city} is no city of this run, whose cities.json names {len(expected)}"
            )
        if expected[city] != description.role:
            does = {"train": "trains", "val": "only evaluates"}
            raise TakenError(
                f"{city} {does[expected[city]]} in this run, and its node was prepared as one that "
                f"{does[description.role]}"
            )
