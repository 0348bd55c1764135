"""Commands for node folders: verify, show, withdraw."""

import argparse

from clients.policy import load_policy
from clients.vault.commands.options import Commands, add_city, add_command, add_node, add_vault
from clients.vault.inspection import describe, summary, verify
from clients.vault.keyring import owners_vault
from clients.vault.node_folder import POLICY, withdraw
from clients.vault.rotation import generations
from fl_ppseg.errors import InputError, RunError


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    does = "compare a node folder with its hashes, its policy and, given the vault, its keys"
    parser = add_command(commands, "verify", does, _verify)
    add_node(parser)
    add_vault(parser, required=False)
    parser = add_command(commands, "show", "say what keys and shards there are, no secret", _show)
    add_node(parser, required=False)
    add_vault(parser, required=False)
    add_city(parser, required=False)
    does = "take a city out: its node refuses everything, what was handed over is removed"
    parser = add_command(commands, "withdraw", does, _withdraw)
    add_node(parser)
    add_vault(parser, required=False)
    add_city(parser)


def _verify(options: argparse.Namespace) -> None:
    vault = None
    if options.vault is not None:
        vault = owners_vault(options.vault, load_policy(options.node / POLICY).city)
    found = verify(options.node, vault)
    for line in found.good:
        print(f"good: {line}")
    for line in found.problems:
        print(f"BAD:  {line}")
    if found.problems:
        first = found.problems[0]
        raise RunError(f"{options.node}: {len(found.problems)} problem(s), the first: {first}")


def _show(options: argparse.Namespace) -> None:
    if options.node is None and (options.vault is None or options.city is None):
        raise InputError("nothing to show; give --vault and --city, or --node, or all three")
    if options.vault is not None:
        city = options.city or load_policy(options.node / POLICY).city
        for generation in generations(owners_vault(options.vault, city)):
            kind = "master key" if generation.is_current else "retired key"
            print(f"{kind} {generation.fingerprint}: salts of {len(generation.records)} shard(s)")
    if options.node is not None:
        policy = load_policy(options.node / POLICY)
        print(f"{options.node}: {describe(policy)}")
        for name, arm in policy.arms.items():
            print(f"  arm {name}: {arm.protection.note if arm.protection else arm.embedding}")
            for seed, folders in arm.shards.items():
                for folder in folders:
                    print(f"    seed {seed}: {folder.name}, {summary(folder)}")


def _withdraw(options: argparse.Namespace) -> None:
    vault = options.vault and owners_vault(options.vault, options.city)
    removed = withdraw(options.node, options.city)
    print(f"{options.node}: {options.city} has withdrawn; {len(removed)} folder(s) removed")
    for path in removed:
        print(f"  {path.parent.name}/{path.name}")
    if vault:
        print(f"the keys in {vault.folder} stay; `retire` destroys them")
    print(
        "what was copied elsewhere is still there, and weights that were trained stay as they are"
    )
