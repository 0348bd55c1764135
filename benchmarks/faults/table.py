"""The table: which faults there are, and what each row says."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.faults import injections
from benchmarks.faults.federation import COORDINATOR, Federation
from benchmarks.faults.outcome import Outcome, clock, told
from benchmarks.faults.programs import CHECKOUT, Program, python
from benchmarks.faults.trial import Steps, Trial
from fl_ppseg.deployment.certificates import issue
from strategies.coordinator.home import Home

HOUR = 3600
REFUSED_SECONDS = 40
"""How long a node that is not admitted is looked at."""
DISK_MB = 24
"""Of the disk that is filled; a checkpoint of the quick model takes 5.5."""
CERTIFICATE_SECONDS = 45

Fault = Callable[[Federation, Outcome], Iterator[str]]


def rows(folder: Path, num_clients: int, faults: list[str]) -> Iterator[str]:
    """Lines to print, for the undisturbed run and each fault."""
    with Federation(folder.absolute(), num_clients) as federation:
        federation.connect()
        trial = Trial(federation, federation.run_folder("undisturbed", {}, federation.folder))
        reference = trial.carry_out(injections.nothing)
        yield (
            f"{_commit()}: {num_clients} training clients and a val client, undisturbed: status "
            f"{reference.status}, {clock(reference.seconds)}, {reference.round_seconds:.1f} s a "
            f"round, {reference.lines.total()} lines, {reference.digest[:8]}"
        )
        for name in faults:
            federation.connect()
            for line in FAULTS[name](federation, reference):
                yield f"{name}: {line}"


def during(
    fault: Callable[[Trial], Steps], **settings: object
) -> Callable[[Federation, Outcome], Iterator[str]]:
    """A fault that a run has to live through, with other settings of the federation."""

    def row(federation: Federation, reference: Outcome) -> Iterator[str]:
        name = getattr(fault, "__name__", "run")
        trial = Trial(federation, federation.run_folder(name, settings, federation.folder))
        yield from _lines(trial, trial.carry_out(fault), reference)

    return row


def kills(federation: Federation, reference: Outcome) -> Iterator[str]:
    """Twenty kills within the time that the undisturbed run took."""
    fault = partial(injections.kills, seconds=reference.round_seconds)
    trial = Trial(federation, federation.run_folder("kills", {}, federation.folder))
    yield from _lines(trial, trial.carry_out(fault), reference)


def disk(federation: Federation, reference: Outcome) -> Iterator[str]:
    """A disk that is full in the middle of a run; when some of it is free, the run goes on."""
    place = federation.folder / "disk"
    federation.stop(COORDINATOR)  # a machine sees what is mounted before it starts
    with _mounted(place):
        federation.connect()
        trial = Trial(federation, federation.run_folder("run", {}, place))
        full = trial.carry_out(injections.full_disk)
        yield from _lines(trial, full, reference)
        left = sorted(path.name for path in place.rglob("*.tmp"))
        yield f"half-written files: {', '.join(left) or 'none'}"
        (place / "filler").unlink()
        yield "some of it was freed"
        yield from _lines(trial, trial.carry_out(injections.nothing), reference)


def clocks(federation: Federation, reference: Outcome) -> Iterator[str]:
    """A node whose clock is an hour wrong when it starts, and one whose clock jumps in a run."""
    client, clock = federation.train[0], federation.folder / "clock"
    library = federation.folder / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    changes = {"LD_PRELOAD": str(library), "SKEW_FILE": str(clock)}
    for skew in (HOUR, -HOUR):
        federation.stop(client)
        clock.write_text(f"{skew}\n")
        program = federation.start(client, changes)
        time.sleep(REFUSED_SECONDS)
        yield f"{skew} s at the start: {' | '.join(program.said())}"
        clock.write_text("0\n")
        federation.wait_for(program, "connected to", 150)
        fault = partial(injections.clock_jumps, clock=clock, skew=skew)
        trial = Trial(federation, federation.run_folder(f"clock{skew}", {}, federation.folder))
        outcome = trial.carry_out(fault)
        yield f"{skew} s in a run: {' | '.join(program.said())}"
        yield from _lines(trial, outcome, reference)
    federation.stop(client)


def expired(federation: Federation, reference: Outcome) -> Iterator[str]:
    """The coordinator's certificate runs out: nodes refuse it, and so does the coordinator."""
    home, client = federation.home, federation.train[0]
    address = federation.network.address(COORDINATOR)
    federation.stop(client)
    federation.stop(COORDINATOR)
    pairs = Home(home)
    issue(pairs.authority, pairs.server, (address,), CERTIFICATE_SECONDS / 86400)
    begin = time.monotonic()
    federation.wait_for(federation.start(COORDINATOR), "ready: ")
    time.sleep(max(0.0, CERTIFICATE_SECONDS + 1 - (time.monotonic() - begin)))
    node = federation.network.on(client, federation.node(client))
    yield f"node: {_ended(federation, node, 'expired-node')}"
    federation.stop(COORDINATOR)
    start = python("strategies.coordinator", "start", "--home", home)
    again = federation.network.on(COORDINATOR, start)
    yield f"coordinator: {_ended(federation, again, 'expired-coordinator')}"
    renew = python("strategies.coordinator", "init", "--home", home, "--renew")
    subprocess.run(renew, check=True, stdout=subprocess.DEVNULL)
    federation.connect()
    yield "after init --renew all nodes are connected again"


FAULTS: dict[str, Fault] = {
    "cut-node": during(injections.cut_node),
    "cut-coordinator": during(injections.cut_coordinator),
    "comes-back": during(injections.comes_back),
    "stays-away": during(injections.stays_away, grace_seconds=30.0),
    "late": during(injections.late, round_timeout=30.0),
    "disk": disk,
    "clocks": clocks,
    "expired": expired,
    "kills": kills,
}


def _lines(trial: Trial, outcome: Outcome, reference: Outcome) -> Iterator[str]:
    yield told(outcome, reference)
    yield from trial.notes
    yield from (f"said: {line}" for line in outcome.said)


def _ended(federation: Federation, command: list[str], name: str) -> str:
    program = Program(command, federation.folder / "logs" / f"{name}.txt")
    status = program.wait(60)
    return f"status {status}: {' | '.join(program.said())}"


@contextmanager
def _mounted(place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _commit() -> str:
    command = ["git", "-C", str(CHECKOUT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
