"""The verb `encrypt`: an owner is told and asked, then images become a node folder."""

import argparse
import sys
from functools import partial

from clients.vault.assignment import Assignment
from clients.vault.consent.consent import Offer, check_reserved, confirm, hash_of, is_named, words
from clients.vault.consent.floor import check_above, check_heldout, read_floor
from clients.vault.handover.forecast import (
    Estimate,
    check_out,
    check_space,
    estimate,
    look_over,
)
from clients.vault.handover.handover import (
    Handover,
    assignments,
    earlier_policy,
    hand_over,
    refuse_plain,
    terms,
)
from clients.vault.handover.start import whence
from clients.vault.keys.keyring import Vault, owners_vault
from clients.vault.layout import FLOOR
from clients.vault.node_folders.node_directory import readers_of
from clients.vault.wording import duration_text, size_text
from fl_ppseg.config.arm import check_deployable
from fl_ppseg.config.loading import arms_of, load_config
from fl_ppseg.data.preflight.rules import refuse_unusable, warnings
from fl_ppseg.data.preflight.table import scan_table
from fl_ppseg.progress.steps import steps
from fl_ppseg.system.command_line import names, tree_of


def encrypt(options: argparse.Namespace) -> None:
    """Look at an owner's images, ask for consent, encrypt them into a node folder; say all of it.

    Args:
        options: Of `python -m clients.vault encrypt`.

    Raises:
        InputError: For options, a config or images that do not fit, or without consent.
        RunError: If the disk is full.
    """
    vault = owners_vault(options.vault, options.city)
    handover = _handover(options, vault)
    before = earlier_policy(handover)
    jobs = assignments(vault, handover)
    _offer(vault, handover, next(iter(jobs.values())))  # below the floor: refused before the work
    with steps(sys.stderr, options.quiet) as progress:
        look = partial(progress.update, f"looking at images of {handover.city}")
        jobs, found = look_over(jobs, options.workers, look)
    print("\n".join([scan_table(found), *warnings(found)]), flush=True)
    refuse_unusable(found)
    cost = estimate(vault, list(jobs.values()), options.workers)
    _announce(handover, next(iter(jobs.values())), cost, options.workers)
    offer = _offer(vault, handover, next(iter(jobs.values())))
    text = words(offer)
    print(text)
    if options.dry_run:
        return
    confirm(text, options.agree, is_asked=not is_named(options.config))
    agreed = {name: t._replace(agreement=hash_of(text)) for name, t in offer.terms.items()}
    with steps(sys.stderr, options.quiet) as progress:

        def show(seed: int, done: int, total: int) -> None:
            progress.update(f"encrypting {handover.city}, seed {seed}", done, total)

        hand_over(vault, handover, jobs, agreed, offer.floor, options.workers, show)
    if cost.num_scenes == 0 and earlier_policy(handover) == before:
        print(f"{handover.node}: complete already, nothing was done")
        return
    print(f"{handover.node}: complete; copy this folder to the node, and never the vault")
    if any(arm.embedding == "private" for arm in handover.arms.values()):
        print(
            "its private embedding is as good as your key: for a node that you trust, and no other"
        )


def _handover(options: argparse.Namespace, vault: Vault) -> Handover:
    """What the options say, once it is clear that an owner can do it."""
    root = tree_of(options.data_root)
    arms_named = options.arms and list(names(options.arms))
    config = load_config(options.config, overrides={"arms": arms_named})
    check_reserved(config)
    arms = arms_of(config)
    check_deployable(arms)
    if not options.allow_plain:
        refuse_plain(arms)
    check_out(vault, options.out, options.city)
    readers = readers_of(options.out) if options.readers is None else options.readers
    return Handover(options.city, options.split, config, arms, root, options.out, readers)


def _offer(vault: Vault, handover: Handover, job: Assignment) -> Offer:
    """What the owner is asked to agree to, once it is above the floor."""
    floor, path, role = read_floor(vault.folder), vault.folder / FLOOR, handover.role
    asked = terms(handover, job, floor)
    for name, arm in handover.arms.items():
        check_above(floor, path, name, arm, asked[name], role)
    check_heldout(floor, path, len(job.heldout), role)
    return Offer(
        city=handover.city,
        role=role,
        config=handover.config,
        arms=handover.arms,
        terms=asked,
        floor=floor,
        num_train=len(job.train),
        num_heldout=len(job.heldout),
        start=whence(handover.config),
    )


def _announce(handover: Handover, job: Assignment, cost: Estimate, num_workers: int) -> None:
    """Say what there is to do, and what it costs."""
    print(
        f"{handover.city}: {len(job.train)} images to train on, {len(job.heldout)} held out; arms "
        f"{', '.join(handover.arms)}; seeds {', '.join(map(str, handover.config.seeds))}"
    )
    free = check_space(handover.node, cost.num_bytes)
    if cost.num_scenes:
        print(
            f"to encrypt: {cost.num_scenes} images, {size_text(cost.num_bytes)} on disk "
            f"({size_text(free)} free), about {duration_text(cost.seconds)} with {num_workers} "
            "worker(s)",
            flush=True,
        )
