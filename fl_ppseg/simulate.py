"""`python -m fl_ppseg.simulate`: federate one or several arms on this machine and compare them.

The heavy imports stand in `simulation`: help comes at once, and worker processes, which import this
module, start light.
"""

import argparse
import os
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clients.policy.node_policy import NODES_VARIABLE, nodes_folder
from fl_ppseg.config.loading import config_of, read_values
from fl_ppseg.config.run_layout import CONFIG
from fl_ppseg.config.sections import Config
from fl_ppseg.config.unread import refuse_unread, unread_settings
from fl_ppseg.experiment.cells.grid import Cell, cells_of, dump_values
from fl_ppseg.experiment.profiler import profiling
from fl_ppseg.federation.run_folder import RunFolder, is_finished
from fl_ppseg.flower.ray_cluster import RayCluster
from fl_ppseg.progress.plug_ins import PlugIn, add_observer, load_plug_ins
from fl_ppseg.system.command_line import Parser, add_set, names, run, usual_tree
from fl_ppseg.system.errors import InputError, Interrupted
from fl_ppseg.system.files import available_cpus, vaults_folder, write_atomically
from fl_ppseg.system.places import check_run
from fl_ppseg.system.spans import begin_of_process

DEFAULT = "default"
"""The experiment of configs/ that is run where none is named."""
ON_RESUME = (
    "federation.num_rounds", "federation.round_timeout", "federation.wait_seconds",
    "federation.grace_seconds", "federation.max_retries", "federation.keep_checkpoints",
    "num_workers", "training.gradient_checkpointing",
)  # fmt: skip
"""Settings that may change when a run is resumed, such as the number of rounds, or
what a run takes in memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, federate, report; cell by cell where the config names `cells`.

    Raises:
        InputError: For options, data or a config that do not fit.
        RunError: If the run could not be carried to its end.
    """
    options = _parser().parse_args(argv)
    values = _values(options)
    config = config_of(values, _source(options))
    refuse_unread(options.set, unread_settings(config))
    out = _out(options, config)
    if options.forecast:
        cells = cells_of(values, _source(options)) if config.cells else []
        _print_forecast([cell.config for cell in cells] or [config])
        return 0
    _check_places(out, _vault_dir(options), options.resume)
    if options.prepare and options.observer:
        raise InputError("--prepare stops before the rounds that --observer shows; leave one out")
    if options.prepare and options.profile:
        raise InputError("--prepare stops before the rounds that --profile measures; leave one out")
    plug_ins = load_plug_ins(options.observer)
    began = begin_of_process() if argv is None else time.monotonic_ns()
    try:
        if config.cells:
            cells = cells_of(values, _source(options))
            _compare(cells, config.name, dump_values(values), out, options, plug_ins)
        else:
            _run(config, out, options, plug_ins, began)
    except KeyboardInterrupt:
        raise Interrupted(_way_on(out, options)) from None
    return 0


def _print_forecast(configs: Sequence[Config]) -> None:
    """Memory and time of each run, and nothing else."""
    from fl_ppseg.experiment.forecasts import forecast_lines

    for config in configs:
        print("\n".join(forecast_lines(config)), flush=True)


def _check_places(out: Path, vault_dir: Path, is_resumed: bool) -> None:
    """Refuse now what could not be written after the work."""
    if (out / CONFIG).exists() and not is_resumed:
        raise InputError(f"{out}: holds a run already; add --resume or choose another")
    check_run(vault_dir, out)


def _way_on(out: Path, options: argparse.Namespace) -> str:
    """What an interrupted run has kept, and the command to resume it."""
    if not (out / CONFIG).exists():
        return (
            "no round was started; encrypted shards are kept, and the same command will use "
            "them again"
        )
    command = ["python", "-m", "fl_ppseg.simulate", "--resume", "--out", str(out)]
    for name in ("vault_dir", "data_root", "engine", "device"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    for name in options.observer:
        command += ["--observer", name]
    if options.profile:
        command.append("--profile")
    return f"finished rounds are kept in {out}; to resume: {shlex.join(command)}"


def _run(
    config: Config,
    out: Path,
    options: argparse.Namespace,
    plug_ins: Sequence[PlugIn],
    began: int,
    is_cell: bool = False,
) -> None:
    """One run; `began` is when its time begins, in nanoseconds of the monotonic clock."""
    vault_dir = _vault_dir(options)
    nodes = nodes_folder(vault_dir, out)
    if (out / CONFIG).exists() and not nodes.is_dir():
        raise InputError(
            f"{vault_dir} holds no vault of this run; give the --vault-dir that it was started with"
        )
    os.environ[NODES_VARIABLE] = str(nodes)  # worker processes inherit it
    with ExitStack() as stack:
        profiler = None
        if options.profile:  # before any process is started, which notes its spans
            profiler = stack.enter_context(profiling(out, config, began))
        cluster = None if options.prepare else _cluster(config, out, stack)
        from fl_ppseg.experiment.simulation import simulate

        simulate(
            config,
            out,
            vault_dir,
            cluster,
            prepare_only=options.prepare,
            quiet=options.quiet,
            show_table=not (options.quiet and is_cell),
            plug_ins=plug_ins,
            profiler=profiler,
        )


def _compare(
    cells: Sequence[Cell],
    name: str,
    given: str,
    out: Path,
    options: argparse.Namespace,
    plug_ins: Sequence[PlugIn],
) -> None:
    """A run of each cell, each with a Ray of its own, and the table over all of them."""
    from fl_ppseg.experiment.cells.comparison import check, compare, conclude

    check(cells)
    if not options.resume:
        write_atomically(out / CONFIG, given)

    def run_cell(config: Config, own: Path) -> None:
        _run(config, own, options, plug_ins, time.monotonic_ns(), is_cell=True)

    compare(cells, out, run_cell, options.quiet)
    if not options.prepare:
        conclude(name, cells, out)


def _cluster(config: Config, out: Path, stack: ExitStack) -> RayCluster | None:
    """Ray, starting in the background while the heavy modules load; none if it is not needed."""
    if config.engine != "ray" or is_finished(config, RunFolder(out)):
        return None
    cluster = RayCluster(
        config.num_workers or available_cpus(),
        num_gpus=int(config.device.startswith("cuda")),
        preloaded="clients.client_app",
    )
    stack.callback(cluster.stop)
    return cluster


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.simulate",
        "Federate SETR over clients that encrypt their images with their own keys, for "
        "one or several arms, and compare them. Without options: 18 procedural cities.",
    )
    add = parser.add_argument
    add("--clients", type=int, metavar="N", help="training clients (default: 18, one per city)")
    add(
        "--arms", metavar="A,B,...", help="arms to compare (default: those of configs/default.yaml)"
    )
    add("--quick", action="store_true", help="a one-minute trial: configs/quick.yaml")
    add(
        "--config",
        metavar="FILE",
        help="YAML file, or the name of one in configs/ (default: default)",
    )
    add_set(parser)
    add("--data-root", type=Path, metavar="DIR", help="images in Cityscapes layout")
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/<time>-<name>)")
    add(
        "--resume",
        action="store_true",
        help="resume the run in --out; with --set federation.num_rounds=N for more rounds",
    )
    add("--seed", type=int, metavar="N", help="seed of the training (keys never come from it)")
    add("--engine", choices=["ray", "in-process"], help="what runs the clients (default: ray)")
    add("--device", metavar="NAME", help="where local updates run: cpu, cuda (default: cpu)")
    add("--vault-dir", type=Path, metavar="DIR", help="the owners' side: keys, encrypted shards")
    add("--prepare", action="store_true", help="stop before the first round, for `flwr run .`")
    add(
        "--forecast",
        action="store_true",
        help="say what memory and time the run will take, and stop",
    )
    add("--quiet", action="store_true", help="print the final table only")
    add_observer(parser)
    add("--profile", action="store_true", help="measure where the time of each round goes")
    return parser


def _values(options: argparse.Namespace) -> dict[str, Any]:
    """All given settings, or the run's own config when it is resumed."""
    root = None if options.data_root is None else options.data_root.absolute()
    overrides = {
        "engine": options.engine,
        "device": options.device,
        "data.root": root,
    }
    if options.resume:
        _check_resumable(options)
        return read_values(_source(options), options.set, overrides)
    if options.quick and options.config:
        raise InputError("--quick is a config of its own; leave out --config or --quick")
    overrides |= {
        "clients": options.clients,
        "arms": None if options.arms is None else list(names(options.arms)),
        "seeds": None if options.seed is None else [options.seed],
    }
    usual = {"data.root": usual_tree()}
    return read_values(_source(options), options.set, overrides, usual)


def _source(options: argparse.Namespace) -> str:
    """What the config is read from, as an error names it."""
    if options.resume:
        return str(options.out / CONFIG)
    return "quick" if options.quick else options.config or DEFAULT


def _check_resumable(options: argparse.Namespace) -> None:
    """A run is resumed only with its own config."""
    if options.out is None or not (options.out / CONFIG).is_file():
        raise InputError("--resume needs --out with the folder of a run")
    fixed = ("clients", "arms", "quick", "config", "seed")
    given = [f"--{name}" for name in fixed if getattr(options, name) not in (None, False)]
    for text in options.set:
        key = text.partition("=")[0].strip()
        if key not in ON_RESUME:
            given.append(f"--set {key} (can be changed: {', '.join(ON_RESUME)})")
    if given:
        raise InputError(f"--resume uses the run's own config; leave out {given[0]}")


def _vault_dir(options: argparse.Namespace) -> Path:
    return Path(options.vault_dir or vaults_folder()).absolute()


def _out(options: argparse.Namespace, config: Config) -> Path:
    if options.out is not None:
        return Path(options.out).absolute()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.name)
    return Path("runs").absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


if __name__ == "__main__":
    raise SystemExit(run(main))
