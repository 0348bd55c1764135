"""The record of secure aggregation in messages, and the contents of its steps."""

from dataclasses import replace
from typing import Any

import pytest
from fake_nodes import reply, request
from flwr.app import ConfigRecord, MetricRecord
from summed_cohort import SESSION, SummedCohort

from fl_ppseg.federation.message_content import SumPart
from fl_ppseg.federation.message_fields import MAX_SUM
from fl_ppseg.federation.messages import (
    MessageError,
    pack_reply,
    pack_request,
    unpack_reply,
    unpack_request,
)
from fl_ppseg.secure_sum.confirmation import Sets, confirm
from fl_ppseg.secure_sum.contents import (
    ConfirmContent,
    Confirmed,
    ShareContent,
    TrainContent,
    UnmaskContent,
    parse,
)
from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.node import Dealt, Released, deal, unmask
from fl_ppseg.secure_sum.roster import Advert

PART = SumPart(3, "{}")


@pytest.mark.parametrize("task", ["advertise", "share", "train", "confirm", "unmask"])
def test_a_step_travels_as_it_is(task: Any) -> None:
    asked = request(task=task, sum=PART)
    assert unpack_request(pack_request(asked)) == asked
    answered = replace(reply(asked, "aachen"), confusion=None, arrays={}, sum="[]")
    assert unpack_reply(pack_reply(answered, ()), ()).sum == "[]"


def test_other_messages_have_no_such_record() -> None:
    """As they were before there was secure aggregation."""
    assert set(pack_request(request(task="train"))) == {"settings", "figures", "arrays"}
    answered = replace(reply(request(), "aachen"), arrays={})
    assert set(pack_reply(answered, ())) == {"settings", "figures", "arrays"}


@pytest.mark.parametrize(
    ("task", "part"), [("describe", PART), ("evaluate", PART), ("share", None)]
)
def test_a_record_where_none_belongs_or_none_where_one_does(task: Any, part: Any) -> None:
    content = pack_request(request(task=task, sum=part))
    with pytest.raises(MessageError, match="has a record sum, and no other task"):
        unpack_request(content)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (ConfigRecord({"attempt": 1}), "expected entries"),
        (ConfigRecord({"attempt": -1, "content": ""}), "attempt is negative"),
        (ConfigRecord({"attempt": 1, "content": b""}), "content is not a str"),
        (ConfigRecord({"attempt": 1, "content": "", "key": "00"}), "expected entries"),
        (ConfigRecord({"attempt": 1, "content": "x" * (MAX_SUM + 1)}), "at most 16777216"),
        (MetricRecord({"attempt": 1}), "another kind than its name says"),
    ],
)
def test_records_that_must_fail(record: Any, words: str) -> None:
    content = pack_request(request(task="share", sum=PART))
    content["sum"] = record
    with pytest.raises(MessageError, match=words):
        unpack_request(content)


def contents() -> list[Any]:
    cohort = SummedCohort(3)
    roster = cohort.roster()
    dealt = {name: deal(cohort.seat(name, roster)) for name in roster.names}
    own = roster.names[0]
    shares = {peer: d.shares[own] for peer, d in dealt.items() if peer != own}
    sets = {"roster": roster, "members": roster.names, "survivors": roster.names}
    signed = Sets(roster.names, roster.names)
    signature = confirm(cohort.seat(own, roster), signed)
    return [
        roster.adverts[0],
        dealt[own],
        unmask(cohort.seat(own, roster), roster.names, shares),
        ShareContent(roster=roster),
        TrainContent(roster=roster, members=roster.names, exponent=-30, weighting="examples"),
        UnmaskContent(**sets, signatures={own: signature}, shares=shares),
        ConfirmContent(**sets),
        Confirmed(signature=signature),
    ]


@pytest.mark.parametrize(
    "kind",
    [
        Advert,
        Confirmed,
        ConfirmContent,
        Dealt,
        Released,
        ShareContent,
        TrainContent,
        UnmaskContent,
    ],
)
def test_a_content_is_read_back_and_of_one_form(kind: Any) -> None:
    made = next(each for each in contents() if type(each) is kind)
    text = made.model_dump_json()
    assert parse(kind, text) == made
    secret = "5ec2e7" * 30
    wrong = ["", "[]", "{}", text[:-1], text.replace('"', "'"), f'{{"{secret}": 1}}', "[" * 10_000]
    wrong += [text[:-1] + ', "more": 1}', text.replace("city000", "../city000")]
    for each in wrong:
        if each != text:
            with pytest.raises(SumError, match=f"expected a {kind.__name__}") as refused:
                parse(kind, each)
            assert secret not in str(refused.value)
            assert len(str(refused.value)) < 300


def test_lengths_of_keys_and_shares_are_exact() -> None:
    for made in contents():
        text = made.model_dump_json()
        for short in {text.replace(value, value[2:]) for value in hex_values(text)}:
            with pytest.raises(SumError):
                parse(type(made), short)
    assert SESSION.digest != b""


def hex_values(text: str) -> set[str]:
    words = text.split('"')
    return {word for word in words if len(word) >= 64 and set(word) <= set("0123456789abcdef")}
