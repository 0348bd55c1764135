"""`python -m fl_ppseg.initialise`: prepares a run on separate machines.

Writes a run folder that needs no image and no key: the config, the clients that take part, and for
each arm and seed the model of round 0. The coordinator trains it; owners prepare their nodes by it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fl_ppseg.config.arm import check_deployable
from fl_ppseg.config.loading import arms_of, dump_config, load_config, validate
from fl_ppseg.config.sections import Config
from fl_ppseg.config.unread import refuse_unread, unread_settings
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.deployment.clients import Clients, save_clients
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.command_line import Parser, add_set, names, run
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable, write_atomically
from fl_ppseg.system.wording import counted

DEFAULTS = {"federation.grace_seconds": 90.0, "federation.wait_seconds": 300.0}
"""What differs on separate machines: Flower notices after 60 s that a node is gone, and after the
loss of a server all nodes have to join again."""
UNREAD = {
    "clients": "--train-clients names who trains",
    "data.root": "each owner names images of its own (vault encrypt --data-root)",
    "device": "each node's policy says where it computes",
    "engine": "nodes on separate machines need none",
    "num_workers": "each owner says how many processes encrypt (vault encrypt --workers)",
    "partition": "each owner brings its own images",
    "cells": "a comparison of cells is a simulation's; give the config of one run",
    **{
        f"data.{name}": "is of procedural scenes; owners have images of their own"
        for name in ("num_train", "num_val", "scene_size", "scene_seed")
    },
}
"""Settings that a run on separate machines does not read, with the reason."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the run folder.

    Raises:
        InputError: For a config, weights or arms that several machines cannot train.
    """
    options = _parser().parse_args(argv)
    named = {"train": names(options.train_clients), "val": names(options.val_clients)}
    clients = validate(Clients, named, "--train-clients, --val-clients")
    config = _config(options, clients)
    folder = initialise(config, clients, options.out.absolute())
    num_train, num_val = len(clients.train), len(clients.val)
    numbers = f"{counted(num_train, 'training client')}, {counted(num_val, 'val client')}"
    print(f"{folder.path}: {numbers}")
    print(f"arms: {', '.join(config.arms)}; seeds: {', '.join(map(str, config.seeds))}")
    return 0


def initialise(config: Config, clients: Clients, out: Path) -> RunFolder:
    """Write the run folder of a federation; config.yaml, the last file, makes it one.

    Args:
        config: The experiment; where it names images, they are those of who wrote it.
        clients: Who takes part.
        out: The folder.

    Raises:
        InputError: A run lies there, an arm wants what no machine may have, or weights cannot be
            had.
    """
    from fl_ppseg.experiment.initial_weights import initial_models, save_initial  # loads PyTorch

    folder = RunFolder(out)
    if folder.config.exists():
        raise InputError(f"{out}: holds a run already; choose another --out")
    check_writable(out)
    check_deployable(arms_of(config))
    classes = load_class_table(config.data.classes)
    save_initial(config, folder, classes, initial_models(config, classes.num_classes), None)
    save_clients(clients, out)
    write_atomically(folder.config, dump_config(config))
    return folder


def _config(options: argparse.Namespace, clients: Clients) -> Config:
    overrides = {
        "clients": len(clients.train),
        "arms": None if options.arms is None else list(names(options.arms)),
        "seeds": None if options.seed is None else [options.seed],
    }
    refuse_unread(options.set, UNREAD)
    config = load_config(options.config, options.set, overrides, DEFAULTS)
    refuse_unread(options.set, unread_settings(config))
    if config.cells:
        raise InputError(f"{options.config}: a comparison of cells; give the config of one run")
    here = {"root": None}  # each owner has images of its own
    return config.model_copy(update={"data": config.data.model_copy(update=here)})


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.initialise",
        "Make the run folder of a federation whose nodes run on separate machines.",
    )
    add = parser.add_argument
    add("--train-clients", required=True, metavar="A,B,...", help="clients that train")
    add("--val-clients", required=True, metavar="A,...", help="clients that only evaluate")
    add("--out", type=Path, required=True, metavar="DIR", help="run folder to create")
    add("--config", metavar="FILE", help="YAML file, or the name of one in configs/")
    add("--arms", metavar="A,B,...", help="arms to train (those of the config)")
    add_set(parser)
    add("--seed", type=int, metavar="N", help="seed of the training")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
