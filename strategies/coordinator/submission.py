"""`run`: submits a run folder to the SuperLink, follows it and reports its outcome."""

import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from flwr.app import UserConfig

from fl_ppseg.deployment.clients import Clients, load_clients
from fl_ppseg.deployment.services import Say
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.superlink import NoAnswerError, RunState, SuperLink, read_bundle
from fl_ppseg.progress.live import choose_view
from fl_ppseg.progress.observer import Observer
from fl_ppseg.progress.plug_ins import Observers, PlugIn
from fl_ppseg.progress.recorded import replay
from fl_ppseg.system.errors import InputError, RunError
from strategies.coordinator.home import Home
from strategies.coordinator.link import connect

POLL_SECONDS = 0.25
ASK_SECONDS = 2.0
ABSENT_SECONDS = 120.0
"""Time that the SuperLink may be unreachable, for instance during a restart."""
ATTEMPTS = 3
"""How often a run whose processes were lost is submitted again within one round."""


def follow_run(
    home: Home,
    run: RunFolder,
    app: Path | None,
    *,
    quiet: bool,
    plug_ins: Sequence[PlugIn],
    say: Say,
) -> None:
    """Submit a run folder, or join its current run, and follow it to its end.

    Args:
        home: The coordinator's folder.
        run: Run folder made by `python -m fl_ppseg.initialise`; a part-trained one is resumed.
        app: The checkout whose app the nodes run; None: this program, from its wheel.
        quiet: Show no progress.
        plug_ins: Observers of the rounds beside the view.
        say: Prints a line for the user.

    Raises:
        InputError: A client is not enrolled, or another run is active.
        RunError: The run failed; the message says why.
        KeyboardInterrupt: The user interrupted it; the run is stopped.
    """
    clients = load_clients(run.path)
    with connect(home) as link:
        _check_enrolled(home, clients, link, say)
        patience, num_lost, reached = 0.0, 0, -1
        while True:
            offset, run_id = _join(home, link, run, clients, app, patience)
            with Observers(choose_view(quiet, sys.stderr), plug_ins, run.path) as observer:
                state = _follow(link, run_id, run, observer, offset)
            if state.outcome == "completed":
                return
            before, reached = reached, _num_rounds(run)
            num_lost = num_lost + 1 if reached == before else 1
            if not state.is_lost or num_lost > ATTEMPTS:
                raise RunError(_why(state))
            say(f"the server was lost ({state.reason or 'no reason given'}); resuming")
            patience = ABSENT_SECONDS


def check_app(app: Path | None) -> Path | None:
    """Check that a folder is a checkout with an app; returns it. None: the wheel is the app.

    Raises:
        InputError: It is not.
    """
    if app is not None and not (app / "pyproject.toml").is_file():
        raise InputError(
            f"{app}: no app, pyproject.toml is missing; give --app a checkout of fl_ppseg"
        )
    return app


def _check_enrolled(home: Home, clients: Clients, link: SuperLink, say: Say) -> None:
    if home.settings.insecure:
        return
    enrolled = home.enrolled()
    if missing := [client for client in clients.all if client not in enrolled]:
        raise InputError(
            f"not enrolled: {', '.join(missing)}; get each node.pub and run "
            f"python -m strategies.coordinator enrol --home {home.folder} {missing[0]} node.pub"
        )
    online = {node.client for node in link.nodes() if node.is_online}
    if away := [client for client in clients.all if client not in online]:
        say(f"not connected yet: {', '.join(away)}")


def _active_run(home: Home, link: SuperLink, run: RunFolder) -> int | None:
    """Id of the active run of this folder; None if no run is active."""
    for state in link.runs():
        if not state.is_finished:
            if state.run_dir == str(run.path):
                return state.run_id
            raise InputError(
                f"a run of {state.run_dir or 'another app'} is active; wait for its end, or "
                f"stop it: python -m strategies.coordinator stop --home {home.folder}"
            )
    return None


def _join(
    home: Home, link: SuperLink, run: RunFolder, clients: Clients, app: Path | None, patience: float
) -> tuple[int, int]:
    """Find or submit the run; the SuperLink may be unreachable for `patience` seconds.

    Returns:
        Offset of its first new event, and its id.
    """
    end = time.monotonic() + patience
    while True:
        try:
            found = _active_run(home, link, run)
            return (_size(run), _submit(link, run, clients, app)) if found is None else (0, found)
        except NoAnswerError:
            if time.monotonic() >= end:
                raise
            time.sleep(POLL_SECONDS)


def _submit(link: SuperLink, run: RunFolder, clients: Clients, app: Path | None) -> int:
    bundle = read_bundle(check_app(app))
    config: UserConfig = {"run-dir": str(run.path), "num-nodes": len(clients.all)}
    return link.submit(bundle, hashlib.sha256(bundle).hexdigest(), config)


def _follow(
    link: SuperLink, run_id: int, run: RunFolder, observer: Observer, offset: int
) -> RunState:
    """Show a run until it is finished; an interrupt stops it."""
    state: RunState | None = None
    asked = answered = time.monotonic()
    try:
        while state is None or not state.is_finished:
            offset = replay(run.progress, observer, offset)
            time.sleep(POLL_SECONDS)
            if time.monotonic() - asked < ASK_SECONDS:
                continue
            asked = time.monotonic()
            try:
                state, answered = link.run(run_id), asked
            except NoAnswerError:
                if asked - answered > ABSENT_SECONDS:
                    raise
    except KeyboardInterrupt:
        link.stop(run_id)
        raise
    replay(run.progress, observer, offset)
    return state


def _size(run: RunFolder) -> int:
    path = run.progress
    return path.stat().st_size if path.exists() else 0


def _num_rounds(run: RunFolder) -> int:
    return sum(line["role"] == "round" for line in run.lines())


def _why(state: RunState) -> str:
    if state.outcome == "stopped":
        return "the run was stopped; repeat the command to resume after its last finished round"
    reason = state.reason or "the run failed"
    return f"{reason}; repeat the command to resume after its last finished round"
