"""Verbs for images: encrypt them for a node, decrypt one's own."""

import argparse
import grp
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clients.policy.policy import NodePolicy
from clients.vault.commands.options import absolute, add_node, add_owner
from clients.vault.keys.keyring import open_vault
from clients.vault.node_folders.node_directory import NodeDirectory
from clients.vault.node_folders.node_folder import policy_of
from clients.vault.shards.plain_tree import write_tree
from fl_ppseg.system.command_line import Parser, count
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.places import check_apart

PLAIN_APART: Final = "plain images must not lie with keys, nor with what is handed over"


def _encrypt_options(parser: Parser) -> None:
    add_owner(parser, deployed=True)
    add = parser.add_argument
    add("--data-root", type=Path, metavar="TREE", help="Cityscapes tree (or CITYSCAPES_DATASET)")
    add("--config", required=True, metavar="FILE", help="the run's YAML file, or a name in configs")
    add("--arms", metavar="A,B", help="arms to encrypt for; all of the config if left out")
    add("--split", choices=("train", "val"), default="train", help="val: only to be evaluated on")
    add(
        "--out", type=absolute, required=True, metavar="FOLDER", help="the node folder: new or ours"
    )
    add("--readers", type=_group, metavar="GROUP", help="may read it too: of the node's app user")
    add(
        "--workers",
        type=count,
        default=available_cpus(),
        metavar="N",
        help="processes; by default one a CPU core",
    )
    add("--allow-plain", action="store_true", help="also arms that store images as they are")
    add("--agree", metavar="HASH", help="yes, I agree to what was shown under this hash")
    add("--dry-run", action="store_true", help="say disk and time, and stop")
    add("--quiet", action="store_true", help="show no progress")


def _encrypt(parser: Parser, argv: Sequence[str]) -> int:
    _encrypt_options(parser)
    options = parser.parse_args(argv)
    from clients.vault.export.encryption import encrypt  # not before: it is much to load for help

    encrypt(options)
    return 0


def _decrypt(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    add_node(parser)
    add = parser.add_argument
    add("--arm", required=True, metavar="ARM", help="whose shard")
    add("--seed", type=int, metavar="N", help="of the run, where there are several")
    add("--out", type=absolute, required=True, metavar="TREE", help="a new folder")
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.city)
    for place in (vault.folder, options.node):
        check_apart(place, options.out, "--out", PLAIN_APART)
    with NodeDirectory.open(options.node, options.city):
        folder, seed = _shard_of(options, policy_of(options.node, options.city))
        number = write_tree(vault, folder, options.out)
    print(
        f"{options.out}: {number} views of arm {options.arm}, seed {seed}, as they were encrypted"
    )
    return 0


def _shard_of(options: argparse.Namespace, policy: NodePolicy) -> tuple[Path, int]:
    """The shard that is to be decrypted, and its seed."""
    arm = policy.arms.get(options.arm)
    if arm is None:
        raise InputError(
            f"{options.node}: no arm {options.arm!r}; there are {', '.join(policy.arms) or 'none'}"
        )
    seed = options.seed if options.seed is not None else next(iter(arm.shards))
    if seed not in arm.shards:
        raise InputError(
            f"{options.node}: no seed {seed}; there are {', '.join(map(str, arm.shards))}"
        )
    protection = arm.protection
    if protection is not None and protection.key_lifetime != "derived":
        reason = (
            "images lie there as they are, nothing is to be decrypted"
            if protection.key_mode == "plain"
            else "its keys were disposable and are gone: nobody can decrypt it, not even you"
        )
        raise InputError(f"arm {options.arm}: {reason}")
    (folder,) = arm.shards[seed]
    return folder, seed


def _group(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no group of this machine; make it with groupadd, and the app's user its "
            "member"
        ) from None


VERBS = {"encrypt": _encrypt, "decrypt": _decrypt}
