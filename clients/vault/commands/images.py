"""Verbs for images: encrypt them for a node, decrypt them again."""

import argparse
import grp
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clients.policy.node_policy import NodePolicy
from clients.vault.commands.options import absolute, add_node, add_owner
from clients.vault.keys.keyring import open_vault
from clients.vault.node_folders.directory import NodeDirectory
from clients.vault.node_folders.policies import load_node_policy
from clients.vault.shards.plain_tree import write_tree
from fl_ppseg.system.command_line import Parser, count
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.places import check_apart

PLAIN_APART: Final = "plain images must not lie in a folder with keys or exported data"


def _encrypt_options(parser: Parser) -> None:
    add_owner(parser, deployed=True)
    add = parser.add_argument
    add("--data-root", type=Path, metavar="TREE", help="Cityscapes tree (or CITYSCAPES_DATASET)")
    add("--config", required=True, metavar="FILE", help="the run's YAML file, or a name in configs")
    add("--arms", metavar="A,B", help="arms to encrypt for (all of the config)")
    add("--cohort", type=Path, metavar="FILE", help="cohort keys, for secure aggregation")
    add("--split", choices=("train", "val"), default="train", help="val: only evaluate on them")
    add(
        "--out",
        type=absolute,
        required=True,
        metavar="FOLDER",
        help="the node folder: a new one, or one that encrypt made",
    )
    add("--readers", type=_group, metavar="GROUP", help="group of the app's user: may read it too")
    add(
        "--workers",
        type=count,
        default=available_cpus(),
        metavar="N",
        help="worker processes (one per CPU core)",
    )
    add("--allow-plain", action="store_true", help="allow arms that store images unencrypted")
    add("--agree", metavar="HASH", help="agree to the terms that were shown with this hash")
    add("--dry-run", action="store_true", help="show terms, disk space and time, then stop")
    add("--quiet", action="store_true", help="show no progress")


def _encrypt(parser: Parser, argv: Sequence[str]) -> int:
    _encrypt_options(parser)
    options = parser.parse_args(argv)
    from clients.vault.export.encryption import encrypt  # imported late, so that help is fast

    encrypt(options)
    return 0


def _decrypt(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    add_node(parser)
    add = parser.add_argument
    add("--arm", required=True, metavar="ARM", help="the arm whose shard to decrypt")
    add("--seed", type=int, metavar="N", help="seed of the run (the first)")
    add("--out", type=absolute, required=True, metavar="TREE", help="a new folder for the images")
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.client)
    for place in (vault.folder, options.node):
        check_apart(place, options.out, "--out", PLAIN_APART)
    with NodeDirectory.open(options.node, options.client):
        folder, seed = _shard_of(options, load_node_policy(options.node, options.client))
        number = write_tree(vault, folder, options.out)
    print(f"{options.out}: {number} views of arm {options.arm}, seed {seed}, decrypted")
    return 0


def _shard_of(options: argparse.Namespace, policy: NodePolicy) -> tuple[Path, int]:
    """The shard to decrypt, and its seed."""
    arm = policy.arms.get(options.arm)
    if arm is None:
        raise InputError(
            f"{options.node}: no arm {options.arm!r}; expected one of "
            f"{', '.join(policy.arms) or '(there are none)'}"
        )
    seed = options.seed if options.seed is not None else next(iter(arm.shards))
    if seed not in arm.shards:
        raise InputError(
            f"{options.node}: no seed {seed}; expected one of {', '.join(map(str, arm.shards))}"
        )
    protection = arm.protection
    if protection is not None and protection.key_lifetime != "derived":
        reason = (
            "its images are stored unencrypted, so there is nothing to decrypt"
            if protection.key_mode == "plain"
            else "its keys were disposable and no longer exist: nobody can decrypt it, not even you"
        )
        raise InputError(f"arm {options.arm}: {reason}")
    (folder,) = arm.shards[seed]
    return folder, seed


def _group(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"no group {text!r} on this machine; create it with groupadd, and add the app's user "
            "to it"
        ) from None


def _follow(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser, deployed=True)
    add = parser.add_argument
    add("--data-root", type=Path, metavar="TREE", help="Cityscapes tree (or CITYSCAPES_DATASET)")
    add("--config", required=True, metavar="FILE", help="the config that was agreed to")
    add("--arms", metavar="A,B", help="arms that were encrypted for (all of the config)")
    add("--out", type=absolute, required=True, metavar="FOLDER", help="the node folder")
    add(
        "--asked",
        type=absolute,
        required=True,
        metavar="FILE",
        help="asked.json in the state folder of the node's app, or a copy that is kept up to date",
    )
    add("--workers", type=count, default=1, metavar="N", help="worker processes (1)")
    add("--once", action="store_true", help="make what is needed now, then stop")
    add("--quiet", action="store_true", help="print nothing")
    options = parser.parse_args(argv)
    from clients.vault.export.rounds import follow  # imported late, so that help is fast

    follow(options)
    return 0


VERBS = {"encrypt": _encrypt, "decrypt": _decrypt, "follow": _follow}
