"""Verbs for node folders: verify, show, withdraw."""

from collections.abc import Sequence

from clients.vault.commands.options import add_client, add_node, add_owner, add_vault
from clients.vault.export.inspection import describe, summary, verify
from clients.vault.keys.keyring import Vault, open_vault
from clients.vault.keys.rotation import generations
from clients.vault.node_folders.directory import NodeDirectory
from clients.vault.node_folders.policies import load_node_policy, withdraw
from clients.vault.shards.plain_tree import unfinished_tree, unfinished_warning
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError, RunError


def _verify(parser: Parser, argv: Sequence[str]) -> int:
    add_node(parser)
    add_vault(parser, required=False)
    options = parser.parse_args(argv)
    with NodeDirectory.open(options.node) as node:
        vault = None if options.vault is None else open_vault(options.vault, node.client)
        found = verify(node, vault)
    for line in found.good:
        print(f"good: {line}")
    for line in found.problems:
        print(f"BAD:  {line}")
    if found.problems:
        first = found.problems[0]
        raise RunError(f"{options.node}: {len(found.problems)} problem(s), the first: {first}")
    return 0


def _show(parser: Parser, argv: Sequence[str]) -> int:
    add_node(parser, required=False)
    add_vault(parser, required=False)
    add_client(parser, required=False)
    options = parser.parse_args(argv)
    if options.node is None and (options.vault is None or options.client is None):
        raise InputError("nothing to show: expected --vault and --client, or --node, or all three")
    if options.node is None:
        _show_vault(open_vault(options.vault, options.client))
        return 0
    with NodeDirectory.open(options.node, options.client) as node:
        if options.vault is not None:
            _show_vault(open_vault(options.vault, node.client))
        policy = load_node_policy(options.node, node.client)
        print(f"{options.node}: {describe(policy)}")
        for name, arm in policy.arms.items():
            print(f"  arm {name}: {arm.protection.note if arm.protection else arm.embedding}")
            for seed, folders in arm.shards.items():
                for folder in folders:
                    print(f"    seed {seed}: {folder.name}, {summary(folder)}")
    return 0


def _show_vault(vault: Vault) -> None:
    for generation in generations(vault):
        kind = "master key" if generation.is_current else "retired key"
        print(f"{kind} {generation.fingerprint}: salts of {len(generation.records)} shard(s)")
    if (out := unfinished_tree(vault)) is not None:
        print(unfinished_warning(out))


def _withdraw(parser: Parser, argv: Sequence[str]) -> int:
    add_node(parser)
    add_owner(parser)
    options = parser.parse_args(argv)
    folder = options.vault / options.client
    if not folder.is_dir():  # a vault without keys still knows what it exported
        raise InputError(
            f"{folder}: no such vault; expected the one that exported {options.node}; check "
            "--vault and --client"
        )
    vault = Vault(folder)
    with NodeDirectory.open(options.node, options.client) as node:
        removed, left = withdraw(node, vault)
    print(f"{options.node}: {options.client} has withdrawn; {len(removed)} folder(s) removed")
    for path in removed:
        print(f"  {path}")
    for path in left:
        print(
            f"  {path} is kept: this vault did not export it; inspect it, then remove it yourself"
        )
    print(f"the keys in {vault.folder} are kept; `retire` destroys them")
    print("the app removes a private embedding that it trained when it is next started")
    print("copies elsewhere are not removed, and trained weights cannot be taken back")
    return 0


VERBS = {"verify": _verify, "show": _show, "withdraw": _withdraw}
