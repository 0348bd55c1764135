"""What lies in a node folder, and whether it is as it should be."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from clients.policy.policy import NodePolicy
from clients.policy.start_weights import START, read_start
from clients.private_state import load_start
from clients.vault.keys.keyring import Vault
from clients.vault.layout import PRIVATE, SHARDS
from clients.vault.node_folders.node_directory import CONTENT, MARKER, NodeDirectory, readers_of
from clients.vault.node_folders.node_folder import POLICY, named_folders, policy_of
from clients.vault.shards.plain_tree import unfinished_tree, unfinished_warning
from clients.vault.shards.recovery import wrong_samples
from clients.vault.wording import size_text
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.data.shard import damaged_files, open_shard
from fl_ppseg.system.errors import InputError

OTHER: Final = {PRIVATE: "a private embedding", START: "start weights, hash agrees"}
"""What lies in a node folder beside shards, by its kind."""


class Findings(NamedTuple):
    """What was looked at, and what is wrong with it."""

    good: list[str]
    problems: list[str]


def verify(node: NodeDirectory, vault: Vault | None) -> Findings:
    """Compare every file of a node folder with its hash, and the folder with its policy.

    Args:
        node: The node folder.
        vault: Its owner's vault, to see whether samples of derived ciphertexts decrypt, and whether
            a decryption left plain images somewhere.

    Raises:
        InputError: There is no readable policy.
    """
    path = node.folder.path
    policy = policy_of(path, node.city)
    named = named_folders(policy, path)
    good, problems = [f"{POLICY}: {describe(policy)}"], list(_open_to_others(path))
    for each in sorted(named):
        folder, kind = path / each, each.parts[0]
        look = _shard_problems(folder, policy, vault) if kind == SHARDS else _problems(kind, folder)
        if found := list(look):
            problems += found
            continue
        about = OTHER[kind] if kind in OTHER else summary(folder) + _checked(folder, vault)
        good.append(f"{each}: {about}")
    problems += [f"{path / each}: the policy does not name it" for each in node.unnamed(named)]
    if vault is not None and (out := unfinished_tree(vault)) is not None:
        problems.append(unfinished_warning(out))
    return Findings(good, problems)


def describe(policy: NodePolicy) -> str:
    """A policy in a line."""
    arms = ", ".join(policy.arms) or "none"
    return policy.withdrawn or f"{policy.city} ({policy.role}), arms: {arms}"


def summary(folder: Path) -> str:
    """A shard in a few words."""
    manifest = read_manifest(folder)
    if manifest is None:
        return "no encrypted shard"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return (
        f"{manifest.num_images} images in {manifest.num_views} view(s), {manifest.num_heldout} "
        f"held out, {size_text(size)}"
    )


def _checked(folder: Path, vault: Vault | None) -> str:
    """What more was looked at than that a shard can be read."""
    manifest = read_manifest(folder)
    is_derived = manifest is not None and manifest.record is not None
    return ", hashes agree" + (", samples decrypt" if vault and is_derived else "")


def _shard_problems(folder: Path, policy: NodePolicy, vault: Vault | None) -> Iterator[str]:
    try:
        if damaged := damaged_files(folder):
            for path in damaged:
                yield f"{path}: not as it was written; encrypt the images again"
            return
        (shard,) = open_shard([folder]).parts
        if shard.manifest.city != policy.city:
            yield f"{folder}: is of {shard.manifest.city}, the policy of {policy.city}"
        if shard.manifest.settings != folder.name:
            yield f"{folder}: is the shard {shard.manifest.settings} under another name"
        if vault is not None and shard.manifest.record is not None:
            wrong = wrong_samples(vault, folder)
            yield from (f"{folder}: {name} decrypts to another image" for name in wrong)
    except InputError as error:
        yield str(error)


def _problems(kind: str, folder: Path) -> Iterator[str]:
    try:
        if kind == PRIVATE:
            load_start(folder)
        else:
            read_start(folder)
    except InputError as error:
        yield str(error)


def _open_to_others(node: Path) -> Iterator[str]:
    """Files and folders that others may read or write than their owner and the node's readers."""
    allowed = 0o700 if readers_of(node) is None else 0o750
    paths = [
        node,
        *(node / name for name in (MARKER, POLICY) if (node / name).exists()),
        *(p for kind in CONTENT for p in sorted((node / kind).rglob("*"))),
    ]
    for path in paths:
        mode = path.stat().st_mode & 0o777
        if mode & ~allowed and (path == node or path.is_file()):
            yield f"{path}: open to others (mode {mode:04o}); run chmod go= on it"
