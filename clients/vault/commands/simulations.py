"""Verbs for what simulations stored in the vaults of this machine: list, clear."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from clients.vault.commands.options import absolute
from clients.vault.simulations.clearance import Clearance, clear, plan_clearance
from clients.vault.simulations.inventory import (
    Run,
    StoredFolder,
    clients_in,
    is_marked,
    runs_in,
    stored_folders,
)
from clients.vault.wording import age_text, counted, size_text
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import vaults_folder


def _list(parser: Parser, argv: Sequence[str]) -> int:
    _add_vaults(parser)
    options = parser.parse_args(argv)
    with _open_vaults(options.vault) as vaults:
        runs, sizes = runs_in(vaults), stored_folders(vaults)
        total = size_text(sum(sizes.values()))
        print(
            f"{options.vault}: {counted(len(runs), 'simulated run')}, {total} of encrypted images"
        )
        if runs:
            width = max(map(len, (run.name for run in runs)))
            print(f"{'run':{width}}  {'age':>9}  {'size':>10}  {'own':>10}  run folder")
        for run in runs:
            size, own = _sizes(run, runs, sizes)
            print(
                f"{run.name:{width}}  {age_text(run.seconds):>9}  {size_text(size):>10}  "
                f"{size_text(own):>10}  {_place(run)}"
            )
    if runs:
        print(
            "own: not shared with other runs, so `clear` frees it; see `clear -h` for how to choose"
        )
    return 0


def _clear(parser: Parser, argv: Sequence[str]) -> int:
    _add_vaults(parser)
    add = parser.add_argument
    add("--gone", action="store_true", help="runs whose run folder was deleted")
    add("--run", action="append", default=[], metavar="NAME", help="a run, as `list` names it")
    add("--older-than", type=_days, metavar="DAYS", help="runs prepared more than DAYS ago")
    add("--all", action="store_true", help="every run")
    add("--confirm", action="store_true", help="do not ask")
    options = parser.parse_args(argv)
    with _open_vaults(options.vault) as vaults:
        names = _chosen(options, runs_in(vaults))
        plan = plan_clearance(vaults, names)
        if not plan.runs and not plan.folders:
            clear(vaults, ())  # what an earlier call left
            print(f"{options.vault}: nothing to clear")
            return 0
        _announce(plan)
        _require_consent(options.confirm)
        plan, clients = clear(vaults, names)
        left = [client for client in clients_in(vaults) if not _is_simulated(vaults, client)]
    removed = f"{counted(len(plan.runs), 'run')} and {size_text(plan.num_bytes)} cleared"
    print(f"{options.vault}: {removed}, {counted(len(clients), 'vault')} removed with their keys")
    if left:
        print(
            f"keys kept in {', '.join(left)}: these vaults may not be a simulation's; `retire "
            "--all` destroys their keys"
        )
    return 0


def _chosen(options: argparse.Namespace, runs: Sequence[Run]) -> set[str]:
    """Names of the runs that the options choose."""
    if not (options.gone or options.run or options.older_than is not None or options.all):
        raise InputError(
            "expected a choice of runs: --gone (run folder deleted), --run NAME, --older-than DAYS "
            "or --all; `python -m clients.vault list` lists them"
        )
    names = {run.name for run in runs}
    for name in options.run:
        if name not in names:
            raise InputError(
                f"--run {name}: no such run; `python -m clients.vault list` lists them"
            )
    limit = options.older_than
    return {
        run.name
        for run in runs
        if options.all
        or run.name in options.run
        or (options.gone and run.is_gone)
        or (limit is not None and run.seconds > limit * 86400)
    }


def _announce(plan: Clearance) -> None:
    for run in plan.runs:
        print(f"to clear: {run.name}, {age_text(run.seconds)} old, {_place(run)}")
    print(
        f"total: {counted(len(plan.runs), 'run')}, {counted(len(plan.folders), 'folder')} of "
        f"encrypted images, {size_text(plan.num_bytes)}; cleared runs cannot be resumed",
        flush=True,
    )


def _require_consent(is_given: bool) -> None:
    if is_given:
        return
    if not sys.stdin.isatty():
        raise InputError("nothing was removed; add --confirm to go ahead")
    if input("remove them? (yes/no) ").strip() != "yes":
        raise InputError("not confirmed: nothing was removed")


def _sizes(run: Run, runs: Sequence[Run], sizes: Mapping[StoredFolder, int]) -> tuple[int, int]:
    """Bytes of what a run uses, and of what only it uses."""
    others = {each for other in runs if other is not run for each in other.named}
    named = {
        stored: size for stored, size in sizes.items() if (stored.kind, stored.digest) in run.named
    }
    own = sum(size for stored, size in named.items() if (stored.kind, stored.digest) not in others)
    return sum(named.values()), own


def _place(run: Run) -> str:
    if run.path is None:
        return "(unknown: made by an earlier version)"
    shown = "".join(each if each.isprintable() else "?" for each in str(run.path))
    return f"{shown} (gone)" if run.is_gone else shown


def _is_simulated(vaults: Directory, client: str) -> bool:
    with vaults.child(client) as vault:
        return is_marked(vault)


def _open_vaults(path: Path) -> Directory:
    if not path.is_dir():
        raise InputError(
            f"{path}: no vaults of simulations; give the simulations' --vault-dir as --vault"
        )
    return Directory.open(path)


def _add_vaults(parser: Parser) -> None:
    parser.add_argument(
        "--vault",
        type=absolute,
        default=vaults_folder(),
        metavar="DIR",
        help="the --vault-dir of the simulations (their default)",
    )


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e5:
        raise argparse.ArgumentTypeError(f"expected a number of days, 0 or more, got {text!r}")
    return days


VERBS = {"list": _list, "clear": _clear}
