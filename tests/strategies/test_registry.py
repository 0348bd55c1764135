"""Clients and their nodes: who may have a client, and who may not."""

import pytest

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.roles import Role
from strategies.rounds.registry import Member, RegistrationError, Registry


def says(client: str, role: Role = "train") -> Description:
    return Description("run", client, role)


def some_members() -> Registry:
    return Registry(
        [Member(9, "bremen", "train"), Member(7, "aachen", "train"), Member(5, "z", "val")]
    )


def test_members_are_sorted_by_city_and_not_by_node() -> None:
    assert [(m.client, m.node_id) for m in some_members().members] == [
        ("aachen", 7),
        ("bremen", 9),
        ("z", 5),
    ]
    assert [m.client for m in some_members().with_role("train")] == ["aachen", "bremen"]
    assert [m.client for m in some_members().with_role("val")] == ["z"]
    assert some_members().node_ids == {5, 7, 9}


def test_a_new_client_is_registered() -> None:
    known = some_members()
    assert known.register(3, says("ulm"), {3, 5, 7, 9}) is None
    assert known.of_client("ulm") == Member(3, "ulm", "train")


def test_a_client_may_come_back_as_another_node_once_its_own_is_gone() -> None:
    known = some_members()
    assert known.register(3, says("aachen"), {3, 5, 9}) == Member(7, "aachen", "train")
    assert known.of_client("aachen").node_id == 3
    assert len(known.members) == 3


def refused(client: str, why: str, role: Role = "train", enrolled: str = "") -> None:
    known = some_members()
    before = known.members
    connected = {3, 5, 7, 9} if role == "train" else {3}
    with pytest.raises(RegistrationError, match=why):
        known.register(3, says(client, role), connected, enrolled)
    assert known.members == before


def test_a_second_node_of_a_client_that_is_there_is_refused() -> None:
    refused("aachen", "a second node introduced itself as aachen; the first one is kept")


def test_a_client_cannot_change_its_role() -> None:
    refused("aachen", "aachen: expected role train, got val", role="val")


def test_a_node_has_the_client_it_was_enrolled_for() -> None:
    refused("ulm", "enrolled as bonn introduced itself as ulm", enrolled="bonn")
    known = some_members()
    known.register(3, says("ulm"), {3}, enrolled="ulm")
    assert known.of_client("ulm").node_id == 3


ROLES: dict[str, Role] = {"aachen": "train", "ulm": "train", "z": "val"}


@pytest.mark.parametrize(
    ("client", "role", "why"),
    [
        ("stranger-1", "train", "stranger-1 is not one of the 3 clients in clients.json"),
        ("val-2", "val", "val-2 is not one of the 3 clients"),
        (
            "ulm",
            "val",
            "ulm: expected a node with role train as in .*, got one prepared with role val",
        ),
        (
            "z",
            "train",
            "z: expected a node with role val as in clients.json, got one prepared with role train",
        ),
    ],
)
def test_clients_and_roles_are_those_of_the_run(client: str, role: Role, why: str) -> None:
    known = Registry(expected=ROLES)
    with pytest.raises(RegistrationError, match=why):
        known.register(3, says(client, role), {3})
    assert known.members == ()
    for node, (name, own) in enumerate(ROLES.items()):
        known.register(node, says(name, own), {node})
    assert len(known.members) == 3
