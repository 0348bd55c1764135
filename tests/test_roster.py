"""Cities and their nodes: who may have a city, and who may not."""

import pytest

from fl_ppseg.federation.message_content import Description
from fl_ppseg.federation.roles import Role
from strategies.rounds.roster import Member, Roster, TakenError


def says(city: str, role: Role = "train") -> Description:
    return Description("run", city, role)


def roster() -> Roster:
    return Roster(
        [Member(9, "bremen", "train"), Member(7, "aachen", "train"), Member(5, "z", "val")]
    )


def test_members_are_sorted_by_city_and_not_by_node() -> None:
    assert [(m.city, m.node_id) for m in roster().members] == [
        ("aachen", 7),
        ("bremen", 9),
        ("z", 5),
    ]
    assert [m.city for m in roster().with_role("train")] == ["aachen", "bremen"]
    assert [m.city for m in roster().with_role("val")] == ["z"]
    assert roster().node_ids == {5, 7, 9}


def test_a_new_city_is_admitted() -> None:
    known = roster()
    assert known.admit(3, says("ulm"), {3, 5, 7, 9}) is None
    assert known.of_city("ulm") == Member(3, "ulm", "train")


def test_a_city_may_come_back_as_another_node_once_its_own_is_gone() -> None:
    known = roster()
    assert known.admit(3, says("aachen"), {3, 5, 9}) == Member(7, "aachen", "train")
    assert known.of_city("aachen").node_id == 3
    assert len(known.members) == 3


def refused(city: str, why: str, role: Role = "train", enrolled: str = "") -> None:
    known = roster()
    before = known.members
    present = {3, 5, 7, 9} if role == "train" else {3}
    with pytest.raises(TakenError, match=why):
        known.admit(3, says(city, role), present, enrolled)
    assert known.members == before


def test_a_second_node_of_a_city_that_is_there_is_refused() -> None:
    refused("aachen", "a second node claims aachen; the first keeps it")


def test_a_city_cannot_change_its_role() -> None:
    refused("aachen", "aachen was to train and comes back to val", role="val")


def test_a_node_has_the_city_it_was_enrolled_for() -> None:
    refused("ulm", "enrolled as bonn claims to be ulm", enrolled="bonn")
    known = roster()
    known.admit(3, says("ulm"), {3}, enrolled="ulm")
    assert known.of_city("ulm").node_id == 3


ROLES: dict[str, Role] = {"aachen": "train", "ulm": "train", "z": "val"}


@pytest.mark.parametrize(
    ("city", "role", "why"),
    [
        ("stranger-1", "train", "stranger-1 is no city of this run, whose cities.json names 3"),
        ("val-2", "val", "val-2 is no city of this run"),
        ("ulm", "val", "ulm trains in this run, and its node .* one that only evaluates"),
        ("z", "train", "z only evaluates in this run, and its node .* one that trains"),
    ],
)
def test_cities_and_roles_are_those_of_the_run(city: str, role: Role, why: str) -> None:
    known = Roster(expected=ROLES)
    with pytest.raises(TakenError, match=why):
        known.admit(3, says(city, role), {3})
    assert known.members == ()
    for node, (name, own) in enumerate(ROLES.items()):
        known.admit(node, says(name, own), {node})
    assert len(known.members) == 3
