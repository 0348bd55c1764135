"""A coordinator that is not honest, against nodes with their records: no sum of fewer clients."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from summed_cohort import secret_of

from clients.policy.cohort_key import COHORT_KEY, cohort_key_text
from clients.policy.node_policy import RefusedError
from clients.policy.pledges import make_pledges
from clients.summed_update import Place, answer_step, open_summed_update
from fl_ppseg.federation.message_content import SumPart
from fl_ppseg.secure_sum.contents import (
    ConfirmContent,
    Confirmed,
    ShareContent,
    TrainContent,
    UnmaskContent,
    parse,
)
from fl_ppseg.secure_sum.node import Dealt
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Advert, Roster

NAMES = ("a", "b", "c", "d", "e")
START = {"w": np.zeros(4, np.float32)}
BOUND = 0.5
PARSED = {"advertise": Advert, "share": Dealt, "confirm": Confirmed}


@dataclass
class Nodes:
    """Five nodes of ten images, who answer whatever a coordinator makes up."""

    home: Path
    least: int = 4

    def __post_init__(self) -> None:
        secrets = {name: secret_of(n + 1) for n, name in enumerate(NAMES)}
        keys = {name: secret.public_key for name, secret in secrets.items()}
        self.policies: dict[str, Any] = {}
        for name, secret in secrets.items():
            state = self.home / name
            state.mkdir(mode=0o700)
            make_pledges(state)
            key = state / COHORT_KEY
            key.write_text(cohort_key_text(secret))
            key.chmod(0o600)
            cohort = SimpleNamespace(keys=keys, least=self.least, bound=BOUND, key=key)
            self.policies[name] = SimpleNamespace(client=name, cohort=cohort, run="run", arms={})

    def place(self, name: str, step: str, content: Any = None, attempt: int = 0) -> Place:
        text = "" if content is None else content.model_dump_json()
        request: Any = SimpleNamespace(
            task=step, run_id="0123", arm="plain", seed=0, round=1, sum=SumPart(attempt, text),
            arrays=START,
        )  # fmt: skip
        return Place(request, self.policies[name], self.home / name, 10)

    def ask(self, name: str, step: str, content: Any = None, attempt: int = 0) -> Any:
        return parse(PARSED[step], answer_step(self.place(name, step, content, attempt)))

    def agree(self, attempt: int = 0) -> tuple[Roster, dict[str, Dealt]]:
        roster = Roster(adverts=tuple(self.ask(n, "advertise", attempt=attempt) for n in NAMES))
        content = ShareContent(roster=roster)
        return roster, {n: self.ask(n, "share", content, attempt) for n in NAMES}

    def train(self, name: str, roster: Roster, members: tuple[str, ...], attempt: int = 0) -> None:
        content = TrainContent(
            roster=roster,
            members=members,
            exponent=Ring(BOUND, len(NAMES), 10).exponent,
            weighting="examples",
        )
        summed = open_summed_update(self.place(name, "train", content, attempt))
        summed.mask({"w": np.full(4, 0.1, np.float32)}, 10)

    def release(
        self,
        name: str,
        sets: ConfirmContent,
        dealt: dict[str, Dealt],
        signatures: dict[str, str],
        attempt: int = 0,
    ) -> str:
        shares = {peer: each.shares[name] for peer, each in dealt.items() if peer != name}
        content = UnmaskContent(**dict(sets), signatures=signatures, shares=shares)
        return answer_step(self.place(name, "unmask", content, attempt))


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


def confirmed(nodes: Nodes, sets: ConfirmContent, names: tuple[str, ...]) -> dict[str, str]:
    return {name: nodes.ask(name, "confirm", sets).signature for name in names}


def test_an_honest_round_is_answered(nodes: Nodes) -> None:
    roster, dealt = nodes.agree()
    for name in NAMES:
        nodes.train(name, roster, NAMES)
    sets = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES[:4])
    signatures = confirmed(nodes, sets, NAMES[:4])
    for name in NAMES[:4]:
        assert nodes.release(name, sets, dealt, signatures)
    again = nodes.release("a", sets, dealt, signatures)
    assert again == nodes.release("a", sets, dealt, signatures)


def test_no_second_sum_of_a_round_leaves_a_client_out(nodes: Nodes) -> None:
    """The round is begun again without e, and said to be summed over the same five clients: the
    difference of both sums would be the update of e."""
    roster, dealt = nodes.agree()
    for name in NAMES:
        nodes.train(name, roster, NAMES)
    sets = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES)
    signatures = confirmed(nodes, sets, NAMES)
    for name in NAMES:
        nodes.release(name, sets, dealt, signatures)

    roster, _ = nodes.agree(attempt=1)
    others = NAMES[:4]
    for name in others:
        nodes.train(name, roster, others, attempt=1)
    asked = ConfirmContent(roster=roster, members=others, survivors=NAMES)
    with pytest.raises(RefusedError, match="expected members of this session alone"):
        nodes.ask("a", "confirm", asked, attempt=1)
    asked = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES)
    with pytest.raises(RefusedError, match="has not agreed to this step's members"):
        nodes.ask("a", "confirm", asked, attempt=1)
    asked = ConfirmContent(roster=roster, members=others, survivors=others)
    with pytest.raises(RefusedError, match="already summed over other clients"):
        nodes.ask("a", "confirm", asked, attempt=1)


def test_nodes_that_are_told_other_survivors_give_no_share(nodes: Nodes) -> None:
    """Each is told that another one was lost: their shares together would open most masks."""
    roster, dealt = nodes.agree()
    for name in NAMES:
        nodes.train(name, roster, NAMES)
    told = {
        name: tuple(each for each in NAMES if each != NAMES[(n + 1) % 5])
        for n, name in enumerate(NAMES)
    }
    sets = {
        name: ConfirmContent(roster=roster, members=NAMES, survivors=told[name]) for name in NAMES
    }
    signatures = {name: nodes.ask(name, "confirm", sets[name]).signature for name in NAMES}
    for name in NAMES:
        words = "expected the signatures of at least 4 of them for this set, got 1"
        with pytest.raises(RefusedError, match=words):
            nodes.release(name, sets[name], dealt, signatures)
        with pytest.raises(RefusedError, match="already summed over other clients"):
            nodes.ask(name, "confirm", sets[NAMES[NAMES.index(name) - 2]])


def test_signatures_of_another_session_do_not_count(nodes: Nodes) -> None:
    made = []
    for attempt in (0, 1):
        roster, dealt = nodes.agree(attempt)
        for name in NAMES:
            nodes.train(name, roster, NAMES, attempt)
        sets = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES)
        signatures = {n: nodes.ask(n, "confirm", sets, attempt).signature for n in NAMES}
        made.append((sets, dealt, signatures))
    (_, _, earlier), (sets, dealt, signatures) = made
    with pytest.raises(RefusedError, match=r"for this set, got 0$"):
        nodes.release("a", sets, dealt, earlier, attempt=1)
    assert nodes.release("a", sets, dealt, signatures, attempt=1)


def test_signatures_of_others_do_not_count(nodes: Nodes) -> None:
    roster, dealt = nodes.agree()
    for name in NAMES:
        nodes.train(name, roster, NAMES)
    sets = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES)
    signatures = confirmed(nodes, sets, NAMES)
    swapped = {name: signatures[NAMES[n - 1]] for n, name in enumerate(NAMES)}
    for wrong in (swapped, dict(list(signatures.items())[:3]), {}):
        with pytest.raises(RefusedError, match=r"for this set, got [03]$"):
            nodes.release("a", sets, dealt, wrong)


def test_what_was_not_confirmed_is_not_released(nodes: Nodes) -> None:
    roster, dealt = nodes.agree()
    for name in NAMES:
        nodes.train(name, roster, NAMES)
    sets = ConfirmContent(roster=roster, members=NAMES, survivors=NAMES)
    signatures = confirmed(nodes, sets, NAMES[1:])
    with pytest.raises(RefusedError, match="has not agreed to this step's survivors"):
        nodes.release("a", sets, dealt, signatures)


def test_no_text_of_a_message_is_repeated(nodes: Nodes) -> None:
    place = nodes.place("a", "unmask")
    text = '{"shares": {"SECRET name\\n!": "00"}, "SECRET": 1}'
    object.__setattr__(place.request.sum, "content", text)
    with pytest.raises(RefusedError) as refused:
        answer_step(place)
    assert "SECRET" not in str(refused.value) and "\n" not in str(refused.value)
