"""What a node has bound itself to in secure aggregation: one line each, written before it answers.

    <state>/pledges.jsonl    append-only; an empty file is that of a new node

Each question below has one answer for ever; another one is refused.

    share     a session -> the roster that shares were dealt for
    train     a session -> the weights received, and the quantised update that was masked
    unmask    a round   -> the clients whose updates are added, whatever session asks

So no update is masked twice with the same masks, nobody gets both kinds of share of one client, and
two sums of one round, whose difference could be one client's update, are never given out: a round
that is repeated, after a restart or for other weights, is summed over the same clients.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from clients.policy.journal import append, open_locked, read_lines
from clients.policy.node_policy import RefusedError
from fl_ppseg.config.section import Section
from fl_ppseg.system.errors import InputError

PLEDGES: Final = "pledges.jsonl"
MAX_BYTES: Final = 256 * 2**20
MAX_SESSIONS: Final = 100
"""How often one round is begun: more than lost connections and restarts need."""
_WORDS: Final = {
    "share": "shares for another roster of this session were already dealt",
    "train": "another update of this session was already masked",
    "unmask": "this round was already summed over other clients, and the difference of two sums "
    "could be one client's update; wait until the same clients take part, or start a new run",
}
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Pledge(Section):
    """One question of a round, and its answer."""

    run: Annotated[str, Field(max_length=200)] | None
    """As in the ledger."""
    arm: Annotated[str, Field(max_length=200)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    round: Annotated[int, Field(ge=1, lt=2**63)]
    step: Literal["share", "train", "unmask"]
    session: Digest | None
    """Digest of the session; null where the answer is the same in all."""
    answer: Digest
    """Hash of what the node has bound itself to."""


def pledge(state: Path, new: Pledge) -> None:
    """Bind the node to an answer; it is on disk before this returns.

    Raises:
        RefusedError: It is bound to another, or the round was begun too often.
        InputError: The file is damaged or full.
    """
    path = state / PLEDGES
    missing = (
        "refused: this node has no record of its pledges; its owner has to restore it, or create a "
        "new node (python -m clients.node init; in a simulation: prepare the run again)"
    )
    with open_locked(path, "file of pledges", missing) as descriptor:
        lines = read_lines(descriptor, path, "file of pledges", MAX_BYTES)
        of_round = [
            each
            for number, line in enumerate(lines, 1)
            if _round(each := _parse(line, number, path)) == _round(new)
        ]
        same = [each for each in of_round if (each.step, each.session) == (new.step, new.session)]
        if any(each.answer != new.answer for each in same):
            raise RefusedError(f"refused: {_WORDS[new.step]}")
        if same:
            return
        if len({each.session for each in of_round}) > MAX_SESSIONS:
            raise RefusedError(
                f"refused: round {new.round} was begun more than {MAX_SESSIONS} times"
            )
        append(descriptor, new.model_dump_json(), path)


def check_pledged(state: Path, expected: Pledge) -> None:
    """Check that the node has bound itself to an answer before.

    Raises:
        RefusedError: It has not, or to another.
    """
    path = state / PLEDGES
    with open_locked(
        path, "file of pledges", "refused: this node has no record of its pledges"
    ) as d:
        lines = read_lines(d, path, "file of pledges", MAX_BYTES)
        if expected not in [_parse(line, number, path) for number, line in enumerate(lines, 1)]:
            raise RefusedError(
                "refused: no shares were dealt for this roster of this session by this node"
            )


def _round(each: Pledge) -> tuple[str | None, str, int, int]:
    return each.run, each.arm, each.seed, each.round


def _parse(line: bytes, number: int, path: Path) -> Pledge:
    try:
        return Pledge.model_validate_json(line, strict=True)
    except ValidationError as error:
        raise InputError(
            f"{path}: line {number} is damaged ({error.errors()[0]['msg']}); restore the file, or "
            "create a new node"
        ) from None
