"""The node's ledger: one line for every granted request, written before it is answered.

    <state>/ledger.jsonl    append-only; an empty file is a new ledger

It is the owner's audit trail, and it counts questions: a coordinator that may ask anything as often
as it likes learns held-out label maps from a few dozen evaluations. A question is the weights of a
request with its arm, seed, round and task; the policy fixes everything else. The number of distinct
questions is bounded; a repeated question (after a lost answer, or when a run is resumed) is
answered again, up to `MAX_REPEATS` times. If the owner demands privacy, each line counts as a
release, also a repeated one, since its noise is fresh.

A request whose weights do not follow from those accepted before is refused; it has a line too, one
for all its repetitions, and is no question: what it is refused for tells nothing of images.

A line is on disk before the answer is computed, so that no crash makes a question free. An
incomplete last line belongs to a question that was never answered, and is cut off. The app never
recreates a missing ledger: otherwise whoever could remove it could start counting again.
"""

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from clients.policy.journal import append, make_journal, open_locked, read_lines
from clients.policy.node_policy import LocalPrivacy, RefusedError
from clients.policy.pledges import make_pledges
from fl_ppseg.config.section import Section
from fl_ppseg.learning.privacy import epsilon
from fl_ppseg.system.errors import InputError

LEDGER: Final = "ledger.jsonl"
MAX_REPEATS: Final = 100
"""How often one question is answered: more than lost connections and restarts need."""
MAX_BYTES: Final = 256 * 2**20
"""A million lines; a larger ledger stops all answers until its owner has inspected it."""
MAX_LINE: Final = 4096
MAX_REFUSALS: Final = 1000
"""Lines of refused requests in a ledger: further ones are only in the node's log."""


Refusal = Literal["change", "loss"]


class Entry(Section):
    """One request that was granted, or whose weights were refused."""

    time: Annotated[str, Field(max_length=40)]
    """UTC, ISO 8601."""
    run: Annotated[str, Field(max_length=200)] | None
    """The run that the policy names, or the hash of the agreement; counted separately."""
    arm: Annotated[str, Field(max_length=200)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    round: Annotated[int, Field(ge=0, lt=2**63)]
    """In round 0 the start weights are evaluated."""
    task: Literal["train", "evaluate"]
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the weights in the request."""
    is_release: bool = False
    """Whether it counts towards the owner's epsilon."""
    refused: Refusal | None = None
    """Why it was not answered: honest training does not lead from the weights that the node last
    accepted to these (change), or their loss on held-out images is far above that of others that
    it accepted; null: it was granted."""

    @model_validator(mode="after")
    def _trains_from_round_1(self) -> Self:
        if self.task == "train" and self.round == 0:
            raise ValueError("expected a round of at least 1 for task train")
        return self


class Question(NamedTuple):
    """What identifies a request when questions are counted."""

    run: str | None
    arm: str
    seed: int
    round: int
    task: Literal["train", "evaluate"]
    weights: str


class Limits(NamedTuple):
    """Numbers of distinct questions that the owner agreed to, for one arm, seed and task."""

    per_round: int
    total: int


def make_ledger(state: Path) -> Path:
    """Make ledger and pledges of a new node in its state folder; existing ones are kept.

    Returns:
        The ledger's file.
    """
    make_pledges(state)
    return make_journal(state / LEDGER)


def check_ledger(state: Path) -> None:
    """Check that there is a ledger, before the node describes itself to the coordinator.

    Raises:
        RefusedError: There is none.
    """
    with _locked(state / LEDGER):
        return


def grant(state: Path, question: Question, limits: Limits, privacy: LocalPrivacy | None) -> None:
    """Record a question in the ledger, or refuse it; it is on disk before this returns.

    Args:
        state: The node's state folder.
        question: What is asked.
        limits: What the owner agreed to.
        privacy: The owner's budget; None: nothing is spent.

    Raises:
        RefusedError: There is no ledger, or a limit is reached.
        InputError: The ledger is damaged or full.
    """
    with _locked(state / LEDGER) as descriptor:
        entries = _read(descriptor, state / LEDGER)
        _check_limits(entries, question, limits)
        if privacy is not None:
            _check_budget(entries, privacy)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(time=now, **question._asdict(), is_release=privacy is not None)
        append(descriptor, entry.model_dump_json(), state / LEDGER)


def was_granted(state: Path, question: Question) -> bool:
    """Whether weights were granted before, in this run, arm and seed, for whatever task.

    Raises:
        RefusedError: There is no ledger.
        InputError: The ledger is damaged or full.
    """
    kind = (question.run, question.arm, question.seed, question.weights)
    return any(
        (e.run, e.arm, e.seed, e.weights) == kind and e.refused is None
        for e in read_ledger(state / LEDGER)
    )


def record_refusal(state: Path, question: Question, why: Refusal) -> None:
    """Record a question whose weights were refused, once; at most `MAX_REFUSALS` of a ledger.

    Raises:
        RefusedError: There is no ledger.
        InputError: The ledger is damaged or full.
    """
    path = state / LEDGER
    with _locked(path) as descriptor:
        refused = [e for e in _read(descriptor, path) if e.refused is not None]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(time=now, **question._asdict(), refused=why)
        is_new = entry not in (e.model_copy(update={"time": now}) for e in refused)
        if is_new and len(refused) < MAX_REFUSALS:
            append(descriptor, entry.model_dump_json(), path)


def read_ledger(path: Path) -> list[Entry]:
    """Read all complete lines of a ledger.

    Raises:
        RefusedError: There is none.
        InputError: It is damaged.
    """
    with _locked(path) as descriptor:
        return _read(descriptor, path)


def _check_limits(entries: list[Entry], question: Question, limits: Limits) -> None:
    kind = (question.run, question.arm, question.seed, question.task)
    granted = [e for e in entries if e.refused is None]
    alike = [e for e in granted if (e.run, e.arm, e.seed, e.task) == kind]
    asked = [(entry.round, entry.weights) for entry in alike]
    this = question.round, question.weights
    num_repeats = asked.count(this)
    if num_repeats >= MAX_REPEATS:
        raise RefusedError(
            f"refused: this question was already answered {num_repeats} times ({question.task}, "
            f"round {question.round})"
        )
    if num_repeats:
        return
    distinct = set(asked)
    in_round = sum(round == question.round for round, _ in distinct)
    if in_round >= limits.per_round:
        raise RefusedError(
            f"refused: {in_round} different questions to {question.task} in round "
            f"{question.round} were already answered, as many as the owner agreed to"
        )
    if len(distinct) >= limits.total:
        raise RefusedError(
            f"refused: {len(distinct)} different questions to {question.task} in this arm were "
            "already answered, as many as the owner agreed to"
        )


def _check_budget(entries: list[Entry], privacy: LocalPrivacy) -> None:
    spent = sum(entry.is_release for entry in entries)
    if epsilon(spent + 1, privacy.noise_multiplier, privacy.delta) > privacy.max_epsilon:
        raise RefusedError(
            f"refused: the owner's privacy budget is spent after {spent} answers "
            f"(epsilon {privacy.max_epsilon:g} at delta {privacy.delta:g})"
        )


def _locked(path: Path) -> AbstractContextManager[int]:
    """Open the ledger and lock it for this process.

    Raises:
        RefusedError: There is none.
        InputError: It is not a file.
    """
    return open_locked(
        path,
        "ledger",
        "refused: this node has no ledger; its owner has to restore it, or create a new node "
        "(python -m clients.node init; in a simulation: prepare the run again)",
    )


def _read(descriptor: int, path: Path) -> list[Entry]:
    """Read the entries of an open ledger; cuts off an incomplete last line."""
    lines = read_lines(descriptor, path, "ledger", MAX_BYTES)
    return [_entry(line, number, path) for number, line in enumerate(lines, 1)]


def _entry(line: bytes, number: int, path: Path) -> Entry:
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"longer than {MAX_LINE} bytes")
        return Entry.model_validate_json(line, strict=True)
    except (ValidationError, ValueError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise InputError(
            f"{path}: line {number} is damaged ({why}); restore the file, or inspect what was "
            "asked, move it away and start a new ledger"
        ) from None
