"""Verbs for images: encrypt them for a node, decrypt one's own."""

import argparse
import grp
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from clients.policy import NodePolicy
from clients.vault.assignment import Assignment
from clients.vault.commands.options import absolute, add_node, add_owner
from clients.vault.consent import Offer, check_reserved, confirm, hash_of, is_named, words
from clients.vault.floor import FLOOR, check_above, check_heldout, read_floor
from clients.vault.forecast import (
    Estimate,
    check_out,
    check_space,
    estimate,
    look_over,
)
from clients.vault.handover import Handover, assignments, earlier_policy, hand_over, refuse, terms
from clients.vault.keyring import Vault, owners_vault
from clients.vault.node_directory import NodeDirectory, readers_of
from clients.vault.node_folder import policy_of
from clients.vault.plain_tree import write_tree
from clients.vault.start import whence
from clients.vault.wording import duration_text, size_text
from fl_ppseg.command_line import Parser
from fl_ppseg.config.loading import arms_of, load_config
from fl_ppseg.errors import InputError
from fl_ppseg.files import available_cpus
from fl_ppseg.places import lie_apart
from fl_ppseg.progress.steps import steps
from fl_ppseg.survey.rules import refuse as refuse_labels
from fl_ppseg.survey.rules import warnings
from fl_ppseg.survey.table import survey_table


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
        type=_number,
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
    vault = owners_vault(options.vault, options.city)
    handover = _handover(options, vault)
    before = earlier_policy(handover)
    jobs = assignments(vault, handover)
    _offer(vault, handover, next(iter(jobs.values())))  # below the floor: refused before the work
    with steps(sys.stderr, options.quiet) as progress:
        look = partial(progress.update, f"looking at images of {handover.city}")
        jobs, found = look_over(jobs, options.workers, look)
    print("\n".join([survey_table(found), *warnings(found)]), flush=True)
    refuse_labels(found)
    cost = estimate(vault, list(jobs.values()), options.workers)
    _announce(handover, next(iter(jobs.values())), cost, options.workers)
    offer = _offer(vault, handover, next(iter(jobs.values())))
    text = words(offer)
    print(text)
    if options.dry_run:
        return 0
    confirm(text, options.agree, is_asked=not is_named(options.config))
    agreed = {name: t._replace(agreement=hash_of(text)) for name, t in offer.terms.items()}
    with steps(sys.stderr, options.quiet) as progress:

        def show(seed: int, done: int, total: int) -> None:
            progress.update(f"encrypting {handover.city}, seed {seed}", done, total)

        hand_over(vault, handover, jobs, agreed, offer.floor, options.workers, show)
    if cost.num_scenes == 0 and earlier_policy(handover) == before:
        print(f"{handover.node}: complete already, nothing was done")
        return 0
    print(f"{handover.node}: complete; copy this folder to the node, and never the vault")
    if any(arm.embedding == "private" for arm in handover.arms.values()):
        print(
            "its private embedding is as good as your key: for a node that you trust, and no other"
        )
    return 0


def _handover(options: argparse.Namespace, vault: Vault) -> Handover:
    """What the options say, once it is clear that an owner can do it."""
    root = options.data_root or os.environ.get("CITYSCAPES_DATASET")
    if not root:
        raise InputError("give --data-root, or set CITYSCAPES_DATASET to a Cityscapes tree")
    names = options.arms and [name.strip() for name in options.arms.split(",")]
    config = load_config(options.config, overrides={"arms": names})
    check_reserved(config)
    arms = arms_of(config)
    for name, arm in arms.items():
        refuse(name, arm, options.allow_plain)
    check_out(vault, options.out, options.city)
    readers = readers_of(options.out) if options.readers is None else options.readers
    return Handover(options.city, options.split, config, arms, Path(root), options.out, readers)


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


def _decrypt(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    add_node(parser)
    add = parser.add_argument
    add("--arm", required=True, metavar="ARM", help="whose shard")
    add("--seed", type=int, metavar="N", help="of the run, where there are several")
    add("--out", type=absolute, required=True, metavar="TREE", help="a new folder")
    options = parser.parse_args(argv)
    vault = owners_vault(options.vault, options.city)
    if not (lie_apart(options.out, vault.folder) and lie_apart(options.out, options.node)):
        raise InputError(
            f"{options.out}: lies with the vault or the node folder, but plain images must not lie "
            "with keys, nor with what is handed over; choose another --out"
        )
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


def _number(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; wanted 1 or more")
    return int(text)


def _group(text: str) -> int:
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no group of this machine; make it with groupadd, and the app's user its "
            "member"
        ) from None


VERBS = {"encrypt": _encrypt, "decrypt": _decrypt}
