"""The verb `follow`: fresh views of an owner's images, made ahead of its node, removed behind it.

    <node>/rounds/<digest>/      the views of the round that the node asked for last, and the next

The node says in a file which views it needs. That file is the app's, and hostile: it can name a
round that the owner agreed to, and nothing else. With derived keys a round can be made again, to
the same ciphertexts until the key is rotated; with disposable keys it is made once, so nothing is
removed before the node asks for another round of the same series.
"""

import argparse
import os
import stat
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Final, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter

from clients.policy.fresh_views import ROUNDS, ROUNDS_ON_DISK, round_folder
from clients.policy.node_policy import MAX_ROUNDS, NodePolicy
from clients.vault.assignment import Assignment, stored_as
from clients.vault.export.assignments import Export, assignments
from clients.vault.export.images import is_lost
from clients.vault.export.preflight import check_space, scan_images
from clients.vault.keys.keyring import Vault, open_vault
from clients.vault.node_folders.directory import NodeDirectory, readers_of
from clients.vault.node_folders.exports import ExportList, Kind, read_exports
from clients.vault.node_folders.policies import load_node_policy
from clients.vault.shards.drafts import flaw, remove_moved
from clients.vault.shards.preparation import (
    complete,
    plan_shards,
    remaining_work,
    shard_digests,
)
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import arms_of, load_config
from fl_ppseg.data.manifest import Digest
from fl_ppseg.data.shard_draft import remove_draft
from fl_ppseg.progress.steps import steps
from fl_ppseg.system.command_line import names, tree_of
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.plain_json import read_as

LOOK: Final = 0.5
"""Seconds between two looks at what the node asks for."""
MAX_BYTES: Final = 4096
_KIND: Final[tuple[Kind, ...]] = (ROUNDS,)


@dataclass(frozen=True)
class Asked:
    """What a node needs: the views of a round, by the name of its shard."""

    __pydantic_config__: ClassVar = ConfigDict(strict=True, extra="forbid")

    shard: Digest
    round: Annotated[int, Field(ge=1, le=MAX_ROUNDS)]


_FORM = TypeAdapter(Asked)


class Series(NamedTuple):
    """The rounds of an arm and seed."""

    arm: str
    job: Assignment
    """With this arm alone."""
    shard: Path
    """Folder of what was made ahead."""
    num_rounds: int
    """How many its owner agreed to."""

    @property
    def protection(self) -> ArmConfig:
        """How its images are protected on the node."""
        return stored_as(self.job.protections[self.arm])

    def folder(self, round: int) -> Path:
        """Folder of the views of a round."""
        assert self.job.fresh is not None
        return round_folder(self.job.fresh.place, self.shard, round)


Wanted = tuple[tuple[Series, int], ...]


def parse_asked(content: bytes, source: str) -> Asked:
    """Parse what a node asks for.

    Raises:
        InputError: It is damaged.
    """
    return read_as(_FORM, content, f"{source}: damaged request for views", MAX_BYTES)


def read_asked(path: Path) -> Asked | None:
    """What a node asks for; None where it has not asked, or not in a form that can be read.

    Raises:
        InputError: The file may not be read, or is none.
    """
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected the node's asked.json or a copy"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(
                f"{path}: not a regular file; expected the node's asked.json or a copy"
            )
        content = os.read(descriptor, MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    try:
        return parse_asked(content, str(path))
    except InputError:  # half copied, or made up: what was asked before holds
        return None


def wanted(series: Sequence[Series], asked: Asked | None) -> Wanted:
    """The rounds whose views must lie in the node folder: the one asked for, and the next.

    Args:
        series: In the order in which a coordinator trains them.
        asked: By the node; None: nothing yet.

    Returns:
        At most two; none where the owner agreed to no such round.
    """
    rounds = [(each, round) for each in series for round in range(1, each.num_rounds + 1)]
    first = 0
    if asked is not None:
        found = (each.shard.name == asked.shard and n == asked.round for each, n in rounds)
        first = next((k for k, is_it in enumerate(found) if is_it), len(rounds))
    return tuple(rounds[first : first + ROUNDS_ON_DISK])


def series_of(vault: Vault, export: Export, jobs: Collection[Assignment]) -> list[Series]:
    """What was agreed to and made ahead, in the order in which a coordinator trains it.

    Raises:
        InputError: Config or images are not those that were agreed to.
    """
    policy, found = load_node_policy(export.node, export.client), []
    for job in jobs:
        for name, digest in shard_digests(vault, job).items():
            own = replace(job, protections={name: job.protections[name]})
            each = Series(name, own, job.shard_folder(digest), 0)
            found.append(each._replace(num_rounds=_agreed_rounds(policy, export, each)))
    return found


def _agreed_rounds(policy: NodePolicy, export: Export, series: Series) -> int:
    """How many rounds of a series its owner has agreed to.

    Raises:
        InputError: None, with this config and these images.
    """
    arm, seed = policy.arms.get(series.arm), series.job.seed
    if arm is None or arm.rounds is None or arm.shards.get(seed) != (series.shard,):
        raise InputError(
            f"{export.node}: arm {series.arm}, seed {seed} was not agreed to with this config and "
            "these images; run `encrypt` with them first"
        )
    return arm.num_rounds


def keep_ahead(
    vault: Vault,
    export: Export,
    series: Sequence[Series],
    rounds: Wanted,
    num_workers: int,
    *,
    is_asked: bool,
) -> list[str]:
    """Make the views of some rounds, and remove all others of the same series where a node asked.

    Args:
        vault: The owner's vault.
        export: What was exported.
        series: Whose views are removed; those of other arms may be another call's.
        rounds: Whose views are made, as far as the node's policy allows them now.
        num_workers: Processes that encrypt.
        is_asked: Whether the node asks for these; else nothing is removed, for others may be in use
            whose keys are gone.

    Returns:
        A line on each round that was made, or cannot be.

    Raises:
        InputError: The owner has withdrawn or agreed to another config since, what was made ahead
            is not whole or under an earlier key, or as `complete`.
        RunError: The disk has too little space.
    """
    lines = []
    with vault.lock(), NodeDirectory.open(export.node, export.client) as node:
        remove_moved(vault)
        policy = load_node_policy(export.node, export.client)
        _require_consent(policy)
        agreed = [(e, n) for e, n in rounds if n <= _agreed_rounds(policy, export, e)]
        kept = {Path(ROUNDS, each.folder(round).name) for each, round in agreed}
        if is_asked:
            node.remove(_of_series(read_exports(vault.folder), series), kept, kinds=_KIND)
        for each, round in rounds:
            what = f"round {round} of {each.arm}, seed {each.job.seed}"
            if (each, round) not in agreed:
                lines.append(f"! {what}: its owner agreed to fewer rounds since")
                continue
            job, folder = each.job.of_round(round), each.folder(round)
            _require_ahead(vault, each)
            if not plan_shards(vault, job)[1]:
                remove_draft(job.draft_folder(folder.name))  # half removed, or copied elsewhere
                continue
            if is_lost(vault, job, folder.name, each.protection):
                lines.append(f"! {what}: its views were handed over before and their keys are gone")
                continue
            start = time.monotonic()
            check_space(export.node, remaining_work(vault, job).num_bytes)
            complete(vault, job, num_workers)
            lines.append(f"{what}: made in {time.monotonic() - start:.1f} s")
    return lines


def _of_series(exports: ExportList, series: Sequence[Series]) -> ExportList:
    """What a vault has exported, of shards only the rounds of some series."""
    own = {each.folder(n).name for each in series for n in range(1, each.num_rounds + 1)}
    shards = {name: records for name, records in exports.shards.items() if name in own}
    return replace(exports, shards=shards)


def _any_in_place(series: Sequence[Series]) -> bool:
    return any(each.folder(n).exists() for each in series for n in range(1, each.num_rounds + 1))


def _require_consent(policy: NodePolicy) -> None:
    if policy.withdrawn is not None:
        raise InputError(f"{policy.withdrawn}; no more views are made")


def _require_ahead(vault: Vault, series: Series) -> None:
    """See that what was made ahead is whole, and under the current key.

    Raises:
        InputError: It is not.
    """
    if (why := flaw(vault, series.job, series.shard.name, series.protection)) is not None:
        raise InputError(f"{why}; no more views are made: run `encrypt` again")


def follow(options: argparse.Namespace) -> None:
    """Keep the fresh views of a node's rounds ahead of it, until it is stopped; prints each round.

    Args:
        options: Of `python -m clients.vault follow`.

    Raises:
        InputError: For options, a config or images that do not fit, or after a withdrawal.
        RunError: A worker was killed, or the disk has too little space.
    """
    vault = open_vault(options.vault, options.client)
    named = options.arms and list(names(options.arms))
    config = load_config(options.config, overrides={"arms": named})
    if not config.data.fresh_views:
        raise InputError(
            f"{options.config}: data.fresh_views is not set, so no round has own views"
        )
    place = (tree_of(options.data_root), options.out, readers_of(options.out))
    export = Export(options.client, "train", config, arms_of(config), *place)
    jobs = assignments(vault, export)
    with steps(sys.stderr, options.quiet) as progress:
        look = partial(progress.update, f"looking at images of {export.client}")
        jobs, _ = scan_images(jobs, options.workers, look)
    series = series_of(vault, export, jobs.values())
    done: Wanted = ()
    is_tidy = False
    while True:
        asked = read_asked(options.asked)
        found = wanted(series, asked) if asked is not None else ()
        rounds = found or done or (() if _any_in_place(series) else wanted(series, None))
        if rounds != done or (found and not is_tidy):
            made = keep_ahead(vault, export, series, rounds, options.workers, is_asked=bool(found))
            if not options.quiet:
                print(*made, sep="\n", end="\n" if made else "", flush=True)
            done, is_tidy = rounds, bool(found)
        if options.once:
            return
        time.sleep(LOOK)
