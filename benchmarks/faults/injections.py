"""The faults: each is a generator that does its harm step by step while a run goes on."""

import random
from pathlib import Path

import psutil

from benchmarks.faults.federation import COORDINATOR, NUM_ROUNDS, Federation
from benchmarks.faults.programs import kill
from benchmarks.faults.trial import Steps, Trial, pause

NUM_KILLS = 20
CUT_SECONDS = 60.0
INTO_ROUND = 3.0
"""Seconds after the start of a round that are in its middle, also on an idle machine."""
KINDS = {
    "SuperNode": "clients.node.flower_supernode",
    "app": "clients.node app",
    "ServerApp": "flwr-serverapp",
    "SuperLink": "flower-superlink",
    "SuperExec": "flower-superexec",
    "proxy": "haproxy",
    "node command": "clients.node start",
    "coordinator command": "strategies.coordinator start",
}
"""What is killed, by words of its command line."""


def nothing(trial: Trial) -> Steps:
    """No fault."""
    yield


def kills(trial: Trial, seconds: float, seed: int = 0) -> Steps:
    """kill -9 of processes that a seed draws, at moments that it draws, in every round.

    Args:
        trial: The run.
        seconds: How long a round takes, within which the moments are drawn.
        seed: Of the draws.
    """
    chance = random.Random(seed)
    kinds = (list(KINDS) * NUM_KILLS)[:NUM_KILLS]
    chance.shuffle(kinds)
    each = NUM_KILLS // NUM_ROUNDS
    done = []
    for round in range(1, NUM_ROUNDS + 1):
        moments = sorted(chance.uniform(0, seconds) for _ in range(each))
        begun = 0.0
        for moment, kind in zip(moments, kinds[(round - 1) * each :], strict=False):
            yield from trial.middle_of(round, moment - begun)
            begun = moment
            while not (found := running(trial.federation, kind)):
                yield
            kill([chance.choice(found)])
            done.append(f"{kind} in round {trial.round()}")
            trial.notes = [f"{len(done)} kills: {', '.join(done)}"]


def running(federation: Federation, kind: str) -> list[psutil.Process]:
    """The processes of a kind on all machines, those with the smallest id first."""
    trees = (process for program in federation.programs.values() for process in program.tree())
    return sorted((p for p in trees if KINDS[kind] in _command(p)), key=lambda p: p.pid)


def cut_node(trial: Trial) -> Steps:
    """The cable of a node is out for a minute, from the middle of a round."""
    return _cut(trial, trial.federation.train[0])


def cut_coordinator(trial: Trial) -> Steps:
    """The same of the coordinator's."""
    return _cut(trial, COORDINATOR)


def comes_back(trial: Trial) -> Steps:
    """The plug of a node is out for 20 seconds."""
    yield from trial.middle_of(2, INTO_ROUND)
    client = trial.federation.train[0]
    trial.federation.held.add(client)
    trial.federation.programs[client].kill()
    yield from pause(20)
    trial.federation.start(client)


def stays_away(trial: Trial) -> Steps:
    """The plug of a node is out until the next round has begun."""
    yield from trial.middle_of(2, INTO_ROUND)
    client = trial.federation.train[0]
    trial.federation.held.add(client)
    trial.federation.programs[client].kill()
    try:
        yield from trial.middle_of(3, 0)
    finally:
        trial.federation.start(client)


def late(trial: Trial, seconds: float = 45.0) -> Steps:
    """The app of a node stands still for longer than the round may take, then answers."""
    yield from trial.middle_of(2, INTO_ROUND)
    program = trial.federation.programs[trial.federation.train[0]]
    frozen = [p for p in program.tree() if KINDS["app"] in _command(p)]
    for process in frozen:
        process.suspend()
    try:
        yield from pause(seconds)
    finally:
        for process in frozen:
            process.resume()


def full_disk(trial: Trial) -> Steps:
    """The disk with the run folder is filled to its last byte in the middle of a round."""
    yield from trial.middle_of(2, INTO_ROUND)
    fill(trial.folder.path.parent / "filler")


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(b"\0" * size):
                    continue
            except OSError:
                continue


def clock_jumps(trial: Trial, clock: Path, skew: int) -> Steps:
    """The clock of a node jumps in the middle of a round, and is set right a minute later.

    Args:
        trial: The run.
        clock: File that says by how many seconds the node's clock is wrong.
        skew: What it is to say.
    """
    yield from trial.middle_of(2, INTO_ROUND)
    clock.write_text(f"{skew}\n")
    try:
        yield from pause(CUT_SECONDS)
    finally:
        clock.write_text("0\n")


def _cut(trial: Trial, machine: str) -> Steps:
    network = trial.federation.network
    yield from trial.middle_of(2, INTO_ROUND)
    network.cut(machine)
    try:
        yield from pause(CUT_SECONDS)
    finally:
        network.heal(machine)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
