"""`python -m fl_ppseg.audit`: run the attacks on the arms of a run, and print their scores.

Without a run: on the arms of a config, or on one cipher setting, and the user's own images or
procedural scenes. The heavy imports are in `audit`, so that help is fast.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from clients.policy.node_policy import nodes_folder
from fl_ppseg.audit.identity.options import (
    add_identity,
    audit_identity,
    refuse_without_identity,
)
from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.loading import config_of, read_values
from fl_ppseg.config.run_layout import AUDIT, CONFIG, LEAKS
from fl_ppseg.config.sections import Config
from fl_ppseg.config.unread import refuse_unread, unread_settings
from fl_ppseg.system.command_line import Parser, add_set, count, names, usual_tree
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import user_folder
from fl_ppseg.system.places import check_apart

ONE_SETTING = "cipher"
"""Arm id of a setting given by options."""
NOT_OF_A_RUN: Final = ("config", "cipher", "key-mode", "block-scope")
"""Options that say what a run's own config says."""
OF_AN_AUDIT: Final = ("out", "pictures", "targets", "vault-dir")
"""Options that an audit reads, and the training of one network does not."""
SETS: Final = {"arms": "arms", "cipher": "arms", "data-root": "data.root"}
"""Options, and the config key that each sets."""

_OF_SUMS: Final = ("clients", "federation.fraction_train", "federation.secure_aggregation")
"""Settings that say over how many clients a coordinator sees the sum."""
_NOT_RUN: Final = "an audit without a run trains and federates nothing; leave it out"
_OF_FEDERATION: Final = FederationConfig.model_fields.keys() - {"num_rounds"}
UNREAD: Final = dict.fromkeys(
    (
        *("clients", "engine", "device", "partition", "cells", "data.fresh_views"),
        *(f"federation.{name}" for name in sorted(_OF_FEDERATION)),
    ),
    _NOT_RUN,
)
"""Settings that this command does not read, with what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Attack, score, write leaks.json and report.html, print the leak table.

    Raises:
        InputError: The options, data or config do not fit.
        RunError: A worker or a client failed.
    """
    options = _parser().parse_args(argv)
    if options.identity:
        return audit_identity(options)
    refuse_without_identity(options)
    config = _config(options)
    if options.save_network is not None:
        _save_network(config, options)
        return 0
    out = _out(options)
    if (out / LEAKS).exists():
        raise InputError(f"{out}: holds an audit already; choose another --out")
    from fl_ppseg.audit.procedure import Effort, audit
    from fl_ppseg.audit.vault_search import keys_of

    vault_dir = _vault_dir(options)
    if vault_dir is not None:
        keys_of(vault_dir)  # refused now, not after the attacks
        check_apart(vault_dir, out, "--out")
    effort = Effort.quick() if options.quick else Effort()
    if options.targets is not None:
        effort = replace(effort, num_targets=options.targets)
    audit(
        config,
        options.run,
        out,
        effort,
        vault_dir=vault_dir,
        pictures=options.pictures,
        quiet=options.quiet,
    )
    return 0


def _save_network(config: Config, options: argparse.Namespace) -> None:
    """Train one network and keep it, in place of an audit."""
    for name in OF_AN_AUDIT:
        if getattr(options, name.replace("-", "_")):
            raise InputError(
                f"--save-network trains one network and attacks nothing; drop --{name}"
            )
    from fl_ppseg.audit.procedure import Effort
    from fl_ppseg.audit.saved_network import save_network

    save_network(
        config,
        options.save_network.absolute(),
        Effort.quick() if options.quick else Effort(),
        quiet=options.quiet,
    )


def _config(options: argparse.Namespace) -> Config:
    """The run's own config, or the given one, with the arms that were asked for."""
    if options.run is not None:
        return _config_of_run(options)
    _check_options(options)
    overrides: dict[str, Any] = {"data.root": _absolute(options.data_root)}
    if options.cipher is not None:
        overrides |= {"arms": [ONE_SETTING], f"arm_table.{ONE_SETTING}": _setting(options)}
    else:
        overrides |= {"arms": _names(options.arms)}
    usual = {"data.root": usual_tree()}
    values = read_values(options.config, options.set, overrides, usual)
    config = config_of(values, options.config or "config")
    read = _OF_SUMS if config.federation.secure_aggregation else ()
    refuse_unread(options.set, {name: why for name, why in UNREAD.items() if name not in read})
    refuse_unread(options.set, unread_settings(config))
    return config


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options of which one would be ignored.

    Raises:
        InputError: With the option to leave out or to add.
    """
    if options.arms is not None and options.cipher is not None:
        raise InputError("--arms names settings, --cipher gives one; leave one of them out")
    for name in ("key-mode", "block-scope"):
        if options.cipher is None and _given(options, name):
            raise InputError(f"--{name} belongs to --cipher; add --cipher, or leave it out")
    keys = [assignment.partition("=")[0].strip() for assignment in options.set]
    for name, key in SETS.items():
        if key in keys and _given(options, name):
            raise InputError(f"--{name} and --set {key} exclude each other; leave one of them out")


def _given(options: argparse.Namespace, name: str) -> bool:
    """Whether an option without a default was given."""
    return getattr(options, name.replace("-", "_")) is not None


def _config_of_run(options: argparse.Namespace) -> Config:
    file = options.run / CONFIG
    if not file.is_file():
        raise InputError(f"{options.run}: not a run folder; give the folder that simulate wrote")
    given = [f"--{name}" for name in NOT_OF_A_RUN if _given(options, name)]
    if given or options.set:
        raise InputError(f"a run is audited with its own config; leave out {[*given, '--set'][0]}")
    root = _absolute(options.data_root)
    values = read_values(file, (), {"data.root": root, "arms": _names(options.arms)})
    config = config_of(values, str(file))
    if config.cells:
        raise InputError(f"{options.run}: holds a comparison of cells; give one cell's folder")
    return config


def _setting(options: argparse.Namespace) -> dict[str, Any]:
    """One cipher setting as an arm."""
    key_mode = options.key_mode or "per-image"
    return {
        "note": "the setting that was given",
        "key_mode": key_mode,
        "cipher": options.cipher,
        "block_scope": options.block_scope or "per-block",
        "key_lifetime": "disposable" if key_mode == "per-image" else "derived",
    }


def _absolute(folder: Path | None) -> Path | None:
    return folder.absolute() if folder else None


def _names(arms: str | None) -> list[str] | None:
    return None if arms is None else list(names(arms))


def _vault_dir(options: argparse.Namespace) -> Path | None:
    """Where the keys of the run lie, if that is known."""
    if options.vault_dir is not None:
        if options.run is None:
            raise InputError("--vault-dir belongs to a run; give its folder too")
        return Path(options.vault_dir).absolute()
    usual = user_folder("vaults", "XDG_STATE_HOME", ".local/state")
    is_there = options.run is not None and nodes_folder(usual, options.run).is_dir()
    return usual if is_there else None


def _out(options: argparse.Namespace) -> Path:
    if options.out is not None:
        return Path(options.out).absolute()
    if options.run is not None:
        return Path(options.run).absolute() / AUDIT
    return Path("runs").absolute() / f"{time.strftime('%Y%m%d-%H%M%S')}-audit"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.audit",
        "Attack the arms of a run, or a cipher setting, and print what each adversary gets. "
        "Without options: the arms of configs/default.yaml on procedural scenes.",
    )
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN", help="folder of a run")
    add("--arms", metavar="A,B,...", help="arms to attack (default: all of the run)")
    add("--cipher", metavar="NAME", help="without a run: one cipher, or a product a+b")
    add(
        "--key-mode",
        choices=["per-client", "per-image"],
        help="with --cipher: whose key (default: per-image)",
    )
    add(
        "--block-scope",
        choices=["common", "per-block"],
        help="with --cipher: one draw per image or per block (default: per-block)",
    )
    add("--config", metavar="FILE", help="without a run: YAML file, or the name of one in configs/")
    add_set(parser)
    add("--data-root", type=Path, metavar="DIR", help="images in Cityscapes layout")
    add("--out", type=Path, metavar="DIR", help="where to write (default: RUN/audit)")
    add("--vault-dir", type=Path, metavar="DIR", help="keys to search the run for (default: usual)")
    add("--targets", type=count, metavar="N", help="images to reconstruct (default: 16)")
    add(
        "--save-network",
        type=Path,
        metavar="FILE",
        help="attack nothing: train one arm's survivor network and keep it, for serve --attack",
    )
    add_identity(parser)
    add("--quick", action="store_true", help="weaker attacks, for a first impression")
    add("--pictures", action="store_true", help="show your own images in the report too")
    add("--quiet", action="store_true", help="print the final table only")
    return parser
