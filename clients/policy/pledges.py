"""What a node has bound itself to in secure aggregation: one line each, written before it answers.

    <state>/pledges.jsonl    append-only; the first line is a salt, drawn when the file is made

Each question below has one answer for ever; another one is refused.

    share      a session -> the roster that shares were dealt for
    members    a session -> the clients whose updates are masked against each other
    train      a session -> the weights received, and the quantised update that was masked
    survivors  a round   -> the clients whose updates are added, whatever session asks

So no update is masked twice with the same masks, nobody gets both kinds of share of one client, and
two sums of one round, whose difference could be one client's update, are never given out: a round
that is repeated, after a restart or for other weights, is summed over the same clients. The salt is
part of the keys of every session: two nodes of one owner have no session in common.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from clients.policy.journal import append, open_locked, read_lines
from clients.policy.node_policy import RefusedError
from fl_ppseg.config.section import Section
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

PLEDGES: Final = "pledges.jsonl"
MAX_BYTES: Final = 256 * 2**20
MAX_SESSIONS: Final = 100
"""How often one round is begun: more than lost connections and restarts need."""
_WORDS: Final = {
    "share": "shares for another roster of this session were already dealt",
    "train": "another update of this session was already masked",
    "members": "an update of this session was already masked for other members",
    "survivors": "this round was already summed over other clients, and the difference of two sums "
    "could be one client's update; wait until the same clients take part, or let the owners agree "
    "to a run with other settings",
}
LineT = TypeVar("LineT", bound=Section)
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Salt(Section):
    """The first line."""

    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Pledge(Section):
    """One question of a round, and its answer."""

    run: Annotated[str, Field(max_length=200)] | None
    """As in the ledger."""
    arm: Annotated[str, Field(max_length=200)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    round: Annotated[int, Field(ge=1, lt=2**63)]
    step: Literal["share", "members", "train", "survivors"]
    session: Digest | None
    """Digest of the session; null where the answer is the same in all."""
    answer: Digest
    """Hash of what the node has bound itself to."""


def new_record() -> str:
    """The content of the record of a new node: its salt."""
    return Salt(salt=os.urandom(16).hex()).model_dump_json() + "\n"


def make_pledges(state: Path) -> None:
    """Make the record of a new node in its state folder; an existing one is kept."""
    if not os.path.lexists(state / PLEDGES):
        write_atomically(state / PLEDGES, new_record(), mode=0o600)


def read_salt(state: Path) -> str:
    """The salt of a node's record.

    Raises:
        RefusedError: There is no record.
        InputError: It is damaged.
    """
    with _opened(state) as (_, salt, _):
        return salt.salt


def pledge(state: Path, new: Pledge) -> None:
    """Bind the node to an answer; it is on disk before this returns.

    Raises:
        RefusedError: It is bound to another, or the round was begun too often.
        InputError: The file is damaged or full.
    """
    with _opened(state) as (descriptor, _, pledges):
        of_round = [each for each in pledges if _round(each) == _round(new)]
        alike = of_round if new.session is None else pledges
        same = [each for each in alike if (each.step, each.session) == (new.step, new.session)]
        if any(each.answer != new.answer for each in same):
            raise RefusedError(f"refused: {_WORDS[new.step]}")
        if same:
            return
        sessions = {each.session for each in of_round if each.session is not None}
        if new.session not in {*sessions, None} and len(sessions) >= MAX_SESSIONS:
            raise RefusedError(
                f"refused: round {new.round} was begun {MAX_SESSIONS} times, which is the most"
            )
        append(descriptor, new.model_dump_json(), state / PLEDGES)


def check_pledged(state: Path, expected: Pledge) -> None:
    """Check that the node has bound itself to an answer before.

    Raises:
        RefusedError: It has not, or to another.
    """
    with _opened(state) as (_, _, pledges):
        if expected not in pledges:
            what = "roster" if expected.step == "share" else expected.step
            raise RefusedError(
                f"refused: this node has not agreed to this step's {what}, which comes before it "
                "in the same session"
            )


@contextmanager
def _opened(state: Path) -> Iterator[tuple[int, Salt, list[Pledge]]]:
    """The record, locked for this process."""
    path = state / PLEDGES
    missing = (
        "refused: this node has no record of its pledges; its owner has to create a new node "
        "(python -m clients.node init; in a simulation: prepare the run again)"
    )
    lost = "missing, so what this node bound itself to is not known; a copy may be older: init anew"
    with open_locked(path, "record of pledges", missing, lost) as descriptor:
        first, *lines = read_lines(descriptor, path, "record of pledges", MAX_BYTES) or [b""]
        pledges = [_parse(Pledge, line, number, path) for number, line in enumerate(lines, 2)]
        yield descriptor, _parse(Salt, first, 1, path), pledges


def _round(each: Pledge) -> tuple[str | None, str, int, int]:
    return each.run, each.arm, each.seed, each.round


def _parse(kind: type[LineT], line: bytes, number: int, path: Path) -> LineT:
    try:
        return kind.model_validate_json(line, strict=True)
    except ValidationError as error:
        raise InputError(
            f"{path}: line {number} is damaged ({error.errors()[0]['msg']}); create a new "
            "node: a copy of the file may be older than the last pledges"
        ) from None
