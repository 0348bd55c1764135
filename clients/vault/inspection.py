"""What lies in a node folder, and whether it is as it should be."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from clients.policy import NodePolicy, load_policy
from clients.private_state import load_start
from clients.vault.keyring import Vault
from clients.vault.node_folder import CONTENT, POLICY, named_folders, unnamed_folders
from clients.vault.plain_tree import unfinished, warning
from clients.vault.recovery import wrong_samples
from clients.vault.wording import size_text
from fl_ppseg.errors import InputError
from fl_ppseg.shard import damaged_files, open_shard, read_manifest


class Findings(NamedTuple):
    """What was looked at, and what is wrong with it."""

    good: list[str]
    problems: list[str]


def verify(node: Path, vault: Vault | None) -> Findings:
    """Compare every file of a node folder with its hash, and the folder with its policy.

    Args:
        node: The node folder.
        vault: Its owner's vault, to see whether samples of derived ciphertexts decrypt, and whether
            a decryption left plain images somewhere.

    Raises:
        InputError: There is no readable policy.
    """
    policy = load_policy(node / POLICY)
    good, problems = [f"{POLICY}: {describe(policy)}"], list(_open_to_others(node))
    for folder in sorted(named_folders(policy)):
        is_private = folder.parent.name == "private"
        look = _private_problems(folder) if is_private else _shard_problems(folder, policy, vault)
        if found := list(look):
            problems += found
            continue
        about = "a private embedding" if is_private else summary(folder)
        checked = "" if is_private else _checked(folder, vault)
        good.append(f"{folder.parent.name}/{folder.name}: {about}{checked}")
    problems += [f"{path}: the policy does not name it" for path in unnamed_folders(node, policy)]
    if vault is not None and (out := unfinished(vault)) is not None:
        problems.append(warning(out))
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
        (shard,) = open_shard([folder]).parts
        if shard.manifest.city != policy.city:
            yield f"{folder}: is of {shard.manifest.city}, the policy of {policy.city}"
        damaged = damaged_files(folder)
        yield from (f"{path}: not as it was written; encrypt the images again" for path in damaged)
        if vault is not None and shard.manifest.record is not None and not damaged:
            wrong = wrong_samples(vault, folder)
            yield from (f"{folder}: {name} decrypts to another image" for name in wrong)
    except InputError as error:
        yield str(error)


def _private_problems(folder: Path) -> Iterator[str]:
    try:
        load_start(folder)
    except InputError as error:
        yield str(error)


def _open_to_others(node: Path) -> Iterator[str]:
    """Files and folders that other users may read: the node folder is its user's alone."""
    paths = [
        node,
        node / POLICY,
        *(p for kind in CONTENT for p in sorted((node / kind).rglob("*"))),
    ]
    for path in paths:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077 and (path == node or path.is_file()):
            yield f"{path}: open to others (mode {mode:04o}); run chmod go= on it"
