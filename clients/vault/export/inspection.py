"""Inspection of a node folder: what it contains, and whether it is intact."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from clients.policy.cohort_key import COHORT_KEY, read_cohort_key
from clients.policy.fresh_views import ROUNDS
from clients.policy.node_policy import CohortPolicy, NodePolicy
from clients.policy.start_weights import START, read_start
from clients.private_state import load_start
from clients.vault.keys.keyring import Vault
from clients.vault.layout import PRIVATE, SHARDS
from clients.vault.node_folders.directory import KINDS, MARKER, NodeDirectory, readers_of
from clients.vault.node_folders.policies import (
    POLICY,
    load_node_policy,
    named_folders,
    round_folders,
)
from clients.vault.shards.plain_tree import unfinished_tree, unfinished_warning
from clients.vault.shards.recovery import wrong_samples
from clients.vault.wording import size_text
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.data.shard import damaged_files, open_shard
from fl_ppseg.system.errors import InputError

OTHER: Final = {PRIVATE: "a private embedding", START: "start weights, hash matches"}
"""Descriptions of what a node folder contains besides shards, by kind."""


class Findings(NamedTuple):
    """What a verification found."""

    good: list[str]
    problems: list[str]


def verify(node: NodeDirectory, vault: Vault | None) -> Findings:
    """Compare every file of a node folder with its hash, and the folder with its policy.

    Args:
        node: The node folder.
        vault: Its owner's vault, to check that samples of derived ciphertexts decrypt, and that no
            interrupted decryption left plain images.

    Raises:
        InputError: There is no readable policy.
    """
    path = node.folder.path
    policy = load_node_policy(path, node.client)
    named = named_folders(policy, path)
    named |= {each for each in round_folders(policy) if (path / each).is_dir()}
    good, problems = [f"{POLICY}: {describe(policy)}"], list(_open_to_others(path))
    for each in sorted(named):
        folder, kind = path / each, each.parts[0]
        is_shard = kind in (SHARDS, ROUNDS)
        look = _shard_problems(folder, policy, vault) if is_shard else _problems(kind, folder)
        if found := list(look):
            problems += found
            continue
        about = OTHER[kind] if kind in OTHER else summary(folder) + _checked(folder, vault)
        good.append(f"{each}: {about}")
    if policy.cohort is not None:
        good, problems = _with_cohort(policy.cohort, policy.client, good, problems)
    problems += [f"{path / each}: not named in the policy" for each in node.unnamed(named)]
    if vault is not None and (out := unfinished_tree(vault)) is not None:
        problems.append(unfinished_warning(out))
    return Findings(good, problems)


def _with_cohort(
    cohort: CohortPolicy, client: str, good: list[str], problems: list[str]
) -> tuple[list[str], list[str]]:
    """The findings, with those on the cohort key."""
    try:
        key = read_cohort_key(cohort.key).public_key
    except InputError as error:
        return good, [*problems, str(error)]
    if key != cohort.keys.get(client):
        return good, [*problems, f"{cohort.key}: is not the key that the cohort knows {client} by"]
    return [*good, f"{cohort.key.name}: cohort key, public half matches"], problems


def describe(policy: NodePolicy) -> str:
    """A one-line summary of a policy."""
    arms = ", ".join(policy.arms) or "none"
    return policy.withdrawn or f"{policy.client} ({policy.role}), arms: {arms}"


def summary(folder: Path) -> str:
    """A one-line summary of a shard."""
    manifest = read_manifest(folder)
    if manifest is None:
        return "not an encrypted shard"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return (
        f"{manifest.num_images} images in {manifest.num_views} view(s), {manifest.num_heldout} "
        f"held out, {size_text(size)}"
    )


def _checked(folder: Path, vault: Vault | None) -> str:
    """The checks that a shard passed, besides being readable."""
    manifest = read_manifest(folder)
    has_samples = manifest is not None and manifest.samples_are_kept
    return ", hashes match" + (", samples decrypt" if vault and has_samples else "")


def _shard_problems(folder: Path, policy: NodePolicy, vault: Vault | None) -> Iterator[str]:
    try:
        if damaged := damaged_files(folder):
            for path in damaged:
                yield f"{path}: changed since it was written; encrypt the images again"
            return
        (shard,) = open_shard([folder]).parts
        if shard.manifest.client != policy.client:
            yield (
                f"{folder}: belongs to {shard.manifest.client}, but the policy to {policy.client}; "
                "encrypt the images again"
            )
        if shard.manifest.settings != folder.name:
            yield (
                f"{folder}: is the shard {shard.manifest.settings} under another name; encrypt the "
                "images again"
            )
        if shard.manifest.is_of_round:
            ahead = round_folders(policy).get(Path(ROUNDS, folder.name))
            manifest = None if ahead is None else read_manifest(ahead)
            if manifest is None or manifest.record != shard.manifest.record:
                yield (
                    f"{folder}: its salts are not those of the shard that was made ahead; run "
                    "`follow` again"
                )
        if vault is not None and shard.manifest.samples_are_kept:
            wrong = wrong_samples(vault, folder)
            yield from (
                f"{folder}: {name} decrypts to another image; encrypt the images again"
                for name in wrong
            )
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
    """Files and folders that others than their owner and the node's readers may access."""
    allowed = 0o700 if readers_of(node) is None else 0o750
    paths = [
        node,
        *(node / name for name in (MARKER, POLICY, COHORT_KEY) if (node / name).exists()),
        *(p for kind in KINDS for p in sorted((node / kind).rglob("*"))),
    ]
    for path in paths:
        mode = path.stat().st_mode & 0o777
        if mode & ~allowed and (path == node or path.is_file()):
            yield f"{path}: open to others (mode {mode:04o}); run chmod go= on it"
