"""`python -m fl_ppseg.simulate`: federate one or several arms on this machine and compare them.

The heavy imports stand in `simulation`: help comes at once, and worker processes, which import this
module, start light.
"""

import argparse
import os
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from clients.policy import NODES_VARIABLE, nodes_folder
from fl_ppseg.command_line import Parser, run
from fl_ppseg.config import Config, load_config
from fl_ppseg.engines.ray_cluster import RayCluster
from fl_ppseg.errors import InputError
from fl_ppseg.files import available_cpus, user_folder
from fl_ppseg.run_folder import RunFolder, is_finished


def main(argv: Sequence[str] | None = None) -> int:
    """Prepare, federate, report.

    Raises:
        InputError: For options, data or a config that do not fit.
        RunError: If the run could not be carried to its end.
    """
    options = _parser().parse_args(argv)
    config = _config(options)
    out = _out(options, config)
    if (out / "config.yaml").exists() and not options.resume:
        raise InputError(f"{out}: holds a run already; add --resume or choose another")
    vault_dir = _vault_dir(options)
    os.environ[NODES_VARIABLE] = str(nodes_folder(vault_dir, out))  # worker processes inherit it
    with ExitStack() as stack:
        cluster = None if options.prepare else _cluster(config, out, stack)
        from fl_ppseg.simulation import simulate

        simulate(config, out, vault_dir, cluster, prepare_only=options.prepare, quiet=options.quiet)
    return 0


def _cluster(config: Config, out: Path, stack: ExitStack) -> RayCluster | None:
    """Ray, starting in the background while the heavy modules load; none if it is not needed."""
    if config.engine != "ray" or is_finished(config, RunFolder(out)):
        return None
    cluster = RayCluster(
        config.num_workers or available_cpus(), num_gpus=int(config.device.startswith("cuda"))
    )
    stack.callback(cluster.stop)
    return cluster


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
    root = None if options.data_root is None else options.data_root.absolute()
    overrides = {
        "engine": options.engine,
        "device": options.device,
        "data.root": root,
    }
    if options.resume:
        _check_resumable(options)
        return load_config(options.out / "config.yaml", (), overrides)
    if options.quick and options.config:
        raise InputError("--quick is a config of its own; leave out --config or --quick")
    overrides |= {
        "clients": options.clients,
        "arms": options.arms.split(",") if options.arms else None,
        "seeds": None if options.seed is None else [options.seed],
    }
    environment = {"data.root": os.environ.get("CITYSCAPES_DATASET") or None}
    file = "quick" if options.quick else options.config
    return load_config(file, options.set, overrides, environment)


def _check_resumable(options: argparse.Namespace) -> None:
    """A run goes on with its own config and vault, or not at all."""
    if options.out is None or not (options.out / "config.yaml").is_file():
        raise InputError("--resume needs --out with the folder of a run")
    fixed = ("clients", "arms", "quick", "config", "set", "seed")
    given = [f"--{name}" for name in fixed if getattr(options, name) not in (None, False, [])]
    if given:
        raise InputError(f"--resume goes on with the run's own config; leave out {given[0]}")
    if not nodes_folder(_vault_dir(options), Path(options.out).absolute()).is_dir():
        raise InputError(
            f"{_vault_dir(options)} holds no vault of this run; give the --vault-dir of its start"
        )


def _vault_dir(options: argparse.Namespace) -> Path:
    default = user_folder("vaults", "XDG_STATE_HOME", ".local/state")
    return Path(options.vault_dir or default).absolute()


def _out(options: argparse.Namespace, config: Config) -> Path:
    if options.out is not None:
        return Path(options.out).absolute()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", config.name)
    return Path("runs").absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"


if __name__ == "__main__":
    raise SystemExit(run(main))
