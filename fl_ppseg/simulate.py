"""`python -m fl_ppseg.simulate`: federate one or several arms on this machine and compare them."""

import argparse
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from clients.client_app import app as client_app
from clients.policy import NODES_VARIABLE
from fl_ppseg.command_line import Parser, log_to, run
from fl_ppseg.config import Config, arms_of, load_config
from fl_ppseg.engines import RayCluster, run_in_process, run_on_ray
from fl_ppseg.errors import InputError
from fl_ppseg.files import user_folder, write_atomically
from fl_ppseg.memory import PeakMemory
from fl_ppseg.panels import scene_panels
from fl_ppseg.preparation import Experiment, available_cpus, prepare
from fl_ppseg.progress import choose_observer, steps
from fl_ppseg.report.html import write_report
from fl_ppseg.report.tables import comparison_table, comparison_text
from fl_ppseg.run_folder import RunFolder
from fl_ppseg.summary import Summary, summarise
from strategies.server_app import Federation, build_server_app

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, federate, report.

    Raises:
        InputError: For options, data or a config that do not fit.
        RunError: If the run could not be carried to its end.
    """
    options = _parser().parse_args(argv)
    started = time.monotonic()
    config = _config(options)
    folder = RunFolder(_out(options, config))
    if folder.config.exists() and not options.resume:
        raise InputError(f"{folder.path}: holds a run already; add --resume or choose another")
    vault_dir = options.vault_dir or user_folder("vaults", "XDG_STATE_HOME", ".local/state")
    with ExitStack() as stack:
        memory = stack.enter_context(PeakMemory())
        cluster = _start_cluster(config, options, stack)
        folder.path.mkdir(parents=True, exist_ok=True)
        log_to(folder.log)
        num_workers = config.num_workers or available_cpus()
        with steps(sys.stderr, options.quiet) as progress:
            experiment = prepare(config, folder, vault_dir, num_workers, progress)
        if not options.quiet:
            print(experiment.partition.description, file=sys.stderr)
        os.environ[NODES_VARIABLE] = str(experiment.nodes)
        if options.prepare:
            _print_flwr_run(experiment)
            return 0
        _federate(experiment, cluster, options.quiet)
        summary = _summarise(experiment, time.monotonic() - started, memory.mb)
    _report(experiment, summary)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.simulate",
        "Federate SETR over city clients that encrypt their images with keys of their own, for "
        "one or several arms, and compare them. Without options: 18 procedural cities.",
    )
    add = parser.add_argument
    add("--clients", type=int, metavar="N", help="training clients (default: 18, one a city)")
    add("--arms", metavar="A,B,...", help="arms to compare (default: plain,per-client,per-image)")
    add("--quick", action="store_true", help="a one-minute look: configs/quick.yaml")
    add("--config", metavar="FILE", help="YAML file, or the name of one in configs/")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="set dotted.key=value")
    add("--data-root", type=Path, metavar="DIR", help="images in Cityscapes layout")
    add("--out", type=Path, metavar="DIR", help="run folder (default: runs/<time>-<name>)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--seed", type=int, metavar="N", help="seed of the training (keys never come from it)")
    add("--engine", choices=["ray", "in-process"], help="what runs the clients (default: ray)")
    add("--device", metavar="NAME", help="where local updates run: cpu, cuda (default: cpu)")
    add("--vault-dir", type=Path, metavar="DIR", help="the owners' side: keys, encrypted shards")
    add("--prepare", action="store_true", help="stop before the first round, for `flwr run .`")
    add("--quiet", action="store_true", help="print the final table only")
    parser.formatter_class = argparse.HelpFormatter
    return parser


def _config(options: argparse.Namespace) -> Config:
    if options.resume:
        if options.out is None or not (options.out / "config.yaml").is_file():
            raise InputError("--resume needs --out with the folder of a run")
        return load_config(options.out / "config.yaml")
    if options.quick and options.config:
        raise InputError("--quick is a config of its own; leave out --config or --quick")
    from_environment = os.environ.get("CITYSCAPES_DATASET") or None
    root = options.data_root or (Path(from_environment) if from_environment else None)
    overrides = {
        "clients": options.clients,
        "arms": options.arms.split(",") if options.arms else None,
        "seeds": None if options.seed is None else [options.seed],
        "engine": options.engine,
        "device": options.device,
        "data.root": root.absolute() if root else None,
    }
    return load_config("quick" if options.quick else options.config, options.set, overrides)


def _out(options: argparse.Namespace, config: Config) -> Path:
    if options.out is not None:
        return Path(options.out).absolute()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.name)
    return Path("runs").absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


def _start_cluster(
    config: Config, options: argparse.Namespace, stack: ExitStack
) -> RayCluster | None:
    if config.engine != "ray" or options.prepare:
        return None
    num_gpus = 1 if config.device.startswith("cuda") else 0
    cluster = RayCluster(config.num_workers or available_cpus(), num_gpus)
    stack.callback(cluster.stop)
    return cluster


def _federate(experiment: Experiment, cluster: RayCluster | None, quiet: bool) -> None:
    with choose_observer(quiet, sys.stderr) as observer:
        federation = Federation(experiment.folder, observer, experiment.num_nodes)
        server_app = build_server_app(federation)
        try:
            if cluster is None:
                run_in_process(server_app, client_app, experiment.num_nodes)
            else:
                run_on_ray(server_app, client_app, experiment.num_nodes, cluster)
        finally:
            federation.stop.set()


def _summarise(experiment: Experiment, seconds: float, peak_mb: float) -> Summary:
    config = experiment.config
    return summarise(
        experiment.folder.lines(),
        config.arms,
        experiment.classes.names,
        config.federation.last_rounds,
        seconds,
        peak_mb,
    )


def _report(experiment: Experiment, summary: Summary) -> None:
    folder = experiment.folder
    write_atomically(folder.summary, json.dumps(summary, indent=1) + "\n")
    logger.info("result\n%s", comparison_text(summary))
    report = write_report(
        folder.path,
        summary,
        folder.lines(),
        described(experiment.config),
        scene_panels(experiment),
        experiment.classes,
    )
    console = Console()
    console.print(comparison_table(summary))
    console.print(f"report: {report}", soft_wrap=True, highlight=False)


def described(config: Config) -> dict[str, Any]:
    """The config as plain values, its arms with their settings and notes."""
    arms = {name: arm.model_dump(mode="json") for name, arm in arms_of(config).items()}
    return config.model_dump(mode="json") | {"arm_table": arms}


def _print_flwr_run(experiment: Experiment) -> None:
    print(
        f"prepared {experiment.folder.path}; now, in the checkout:\n"
        f"  export {NODES_VARIABLE}={experiment.nodes}\n"
        f'  flwr run . local --stream -c \'run-dir="{experiment.folder.path}" '
        f"num-nodes={experiment.num_nodes}' --federation-config "
        f"'num-supernodes={experiment.num_nodes} client-resources-num-cpus=1'"
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
