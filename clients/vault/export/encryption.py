"""The verb `encrypt`: checks the images, asks for consent, and exports a node folder."""

import argparse
import sys
from functools import partial

from clients.vault.assignment import Assignment
from clients.vault.consent.agreement import (
    Offer,
    agreement_hash,
    agreement_text,
    check_reserved,
    confirm,
    is_packaged,
)
from clients.vault.consent.cohort import Cohort, cohort_of
from clients.vault.consent.floor import check_floor, check_heldout, check_sums, read_floor
from clients.vault.export.assignments import Export, assignments
from clients.vault.export.images import (
    check_cohort,
    check_one_order,
    earlier_policy,
    export_node_folder,
    lost_rounds,
    refuse_alike,
    refuse_plain,
    terms_by_arm,
)
from clients.vault.export.preflight import (
    Estimate,
    check_output,
    check_space,
    estimate,
    scan_images,
)
from clients.vault.export.start_weights import start_source
from clients.vault.keys.cohort import has_cohort_key, public_cohort_key
from clients.vault.keys.keyring import Vault, open_vault
from clients.vault.layout import FLOOR
from clients.vault.node_folders.directory import readers_of
from clients.vault.wording import duration_text, size_text
from fl_ppseg.config.arm import check_deployable, check_labels
from fl_ppseg.config.loading import arms_of, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.data.preflight.rules import refuse_unusable, warnings
from fl_ppseg.data.preflight.table import scan_table
from fl_ppseg.progress.steps import steps
from fl_ppseg.system.command_line import names, tree_of


def encrypt(options: argparse.Namespace) -> None:
    """Scan an owner's images, ask for consent, encrypt them into a node folder; prints each step.

    Args:
        options: Of `python -m clients.vault encrypt`.

    Raises:
        InputError: For options, a config or images that do not fit, or without consent.
        RunError: If the disk is full.
    """
    vault = open_vault(options.vault, options.client)
    export = _export(options, vault)
    before = earlier_policy(export)
    jobs = assignments(vault, export)
    _offer(vault, export, next(iter(jobs.values())))  # below the floor: refused before the work
    with steps(sys.stderr, options.quiet) as progress:
        look = partial(progress.update, f"looking at images of {export.client}")
        jobs, found = scan_images(jobs, options.workers, look)
    print("\n".join([scan_table(found), *warnings(found)]), flush=True)
    refuse_unusable(found)
    cost = estimate(vault, list(jobs.values()), options.workers)
    _announce(export, next(iter(jobs.values())), cost, options.workers)
    for line in lost_rounds(vault, export, jobs):
        print(line)
    offer = _offer(vault, export, next(iter(jobs.values())))
    text = agreement_text(offer)
    print(text)
    if options.dry_run:
        return
    confirm(text, options.agree, is_asked=not is_packaged(options.config))
    agreed = {name: t._replace(agreement=agreement_hash(text)) for name, t in offer.terms.items()}
    with steps(sys.stderr, options.quiet) as progress:

        def show(seed: int, done: int, total: int) -> None:
            progress.update(f"encrypting {export.client}, seed {seed}", done, total)

        export_node_folder(vault, export, jobs, agreed, offer.floor, options.workers, show)
    if cost.num_scenes == 0 and earlier_policy(export) == before:
        print(f"{export.node}: already complete, nothing was done")
        return
    print(f"{export.node}: complete; copy this folder to the node, but never the vault")
    if export.config.data.fresh_views and export.role == "train":
        print("each round trains on new views: run `follow` beside the node, which makes them")
    if any(arm.embedding == "private" for arm in export.arms.values()):
        print("its private embedding reveals your key: copy it only to a node that you trust")


def _export(options: argparse.Namespace, vault: Vault) -> Export:
    """The export that the options ask for, after checks that it is possible."""
    root = tree_of(options.data_root)
    arms_named = options.arms and list(names(options.arms))
    config = load_config(options.config, overrides={"arms": arms_named})
    check_reserved(config)
    arms = arms_of(config)
    check_deployable(arms)
    check_labels(arms)
    if config.data.fresh_views:
        refuse_alike(arms)
    if not options.allow_plain:
        refuse_plain(arms)
    check_output(vault, options.out, options.client)
    readers = readers_of(options.out) if options.readers is None else options.readers
    cohort = _cohort(options, config, vault)
    place = (root, options.out, readers)
    export = Export(options.client, options.split, config, arms, *place, cohort)
    check_cohort(export)
    check_one_order(export)
    return export


def _cohort(options: argparse.Namespace, config: Config, vault: Vault) -> Cohort | None:
    """With whom the config lets the node's updates be added up; val clients send none."""
    if options.split == "val":
        return None
    own = public_cohort_key(vault.folder) if has_cohort_key(vault.folder) else None
    return cohort_of(config.federation, options.cohort, options.client, own)


def _offer(vault: Vault, export: Export, job: Assignment) -> Offer:
    """What the owner is asked to agree to, after checks against the floor."""
    floor, path, role = read_floor(vault.folder), vault.folder / FLOOR, export.role
    asked = terms_by_arm(export, job, floor)
    for name, arm in export.arms.items():
        check_floor(floor, path, name, arm, asked[name], role)
    check_heldout(floor, path, len(job.heldout), role)
    check_sums(floor, path, export.config.federation, role)
    return Offer(
        client=export.client,
        role=role,
        config=export.config,
        arms=export.arms,
        terms=asked,
        floor=floor,
        num_train=len(job.train),
        num_heldout=len(job.heldout),
        cohort=export.cohort,
        start=start_source(export.config),
    )


def _announce(export: Export, job: Assignment, cost: Estimate, num_workers: int) -> None:
    """Print what there is to do and what it costs.

    Raises:
        RunError: The disk has too little space.
    """
    print(
        f"{export.client}: {len(job.train)} images to train on, {len(job.heldout)} held out; arms "
        f"{', '.join(export.arms)}; seeds {', '.join(map(str, export.config.seeds))}"
    )
    free = check_space(export.node, cost.num_bytes)
    if cost.num_scenes:
        print(
            f"to encrypt: {cost.num_scenes} images, {size_text(cost.num_bytes)} on disk "
            f"({size_text(free)} free), about {duration_text(cost.seconds)} with {num_workers} "
            "worker process(es)",
            flush=True,
        )
