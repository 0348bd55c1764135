"""Export of an owner's images to a node folder, for a config and a tree of images."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from clients.policy.cohort_key import COHORT_KEY, cohort_key_text, read_cohort_key
from clients.policy.fresh_views import ROUNDS
from clients.policy.node_policy import CohortPolicy, NodePolicy
from clients.vault.assignment import Assignment, file_mode, stored_as
from clients.vault.consent.cohort import Cohort
from clients.vault.consent.floor import Floor, apply_floor
from clients.vault.consent.terms import Terms, largest_elsewhere, terms_of
from clients.vault.export.assignments import Export
from clients.vault.export.start_weights import export_start
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.directory import CONTENT, KINDS, NodeDirectory
from clients.vault.node_folders.exports import Kind, read_exports, record_shard
from clients.vault.node_folders.policies import (
    POLICY,
    arm_policy,
    load_node_policy,
    named_folders,
    round_folders,
    write_policy,
)
from clients.vault.shards.drafts import abandon_all, expected_manifest, find_draft
from clients.vault.shards.preparation import prepare_locked, shard_digests
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.arm_models import embedding_reads
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.manifest import read_manifest, round_digest
from fl_ppseg.system.errors import InputError


def refuse_plain(arms: Mapping[str, ArmConfig]) -> None:
    """Refuse arms that would export unencrypted images.

    Raises:
        InputError: One does.
    """
    for name, arm in arms.items():
        if arm.key_mode == "plain":
            raise InputError(
                f"arm {name}: stores images unencrypted; leave it out of --arms, or add "
                "--allow-plain if everybody with access to the node may see them"
            )


def refuse_alike(arms: Mapping[str, ArmConfig]) -> None:
    """Refuse arms whose rounds would need other ciphertexts of the same views.

    Raises:
        InputError: Two of them store images alike, under keys that are thrown away.
    """
    seen: dict[tuple[object, ...], str] = {}
    for name, arm in arms.items():
        kind = (arm.key_mode, arm.cipher, arm.block_scope, arm.labels)
        if arm.key_lifetime == "disposable" and (other := seen.setdefault(kind, name)) != name:
            raise InputError(
                f"arms {other} and {name} store images alike under disposable keys: with "
                "data.fresh_views a node folder serves one of them; choose with --arms"
            )


def is_lost(vault: Vault, job: Assignment, name: str, protection: ArmConfig) -> bool:
    """Whether views that are not in place were handed over before, under keys that are gone: other
    ciphertexts of them would be more than the owner agreed to.

    Args:
        vault: The owner's vault.
        job: Of their round.
        name: Of their shard.
        protection: As they are stored.
    """
    if protection.key_lifetime != "disposable":
        return False
    if name not in read_exports(vault.folder).names("rounds"):
        return False
    return find_draft(vault, job, expected_manifest(job, name, protection), protection) is None


def lost_rounds(vault: Vault, export: Export, jobs: Mapping[int, Assignment]) -> list[str]:
    """A line on each arm and seed of which rounds were handed over before, under keys that no
    longer exist, so that `follow` makes no views of them."""
    known, lines = read_exports(vault.folder).names("rounds"), []
    num_rounds, place = export.config.federation.num_rounds, export.node / ROUNDS
    for seed, job in jobs.items():
        if job.fresh is None or not job.train:
            continue
        for name, digest in shard_digests(vault, job).items():
            protection, num_lost = stored_as(job.protections[name]), 0
            for round in range(1, num_rounds + 1):
                own = round_digest(digest, round)
                if own in known and not (place / own).exists():
                    num_lost += is_lost(vault, job.of_round(round), own, protection)
            if num_lost:
                lines.append(
                    f"WARNING: arm {name}, seed {seed}: the views of {num_lost} of {num_rounds} "
                    "rounds were handed over before and their keys are gone: no node gets them "
                    "again, and a new run needs another seed"
                )
    return lines


def terms_by_arm(export: Export, job: Assignment, floor: Floor) -> dict[str, Terms]:
    """What the config asks the owner to agree to, by arm.

    Args:
        export: What is exported.
        job: One of `assignments`.
        floor: The owner's.

    Raises:
        InputError: As `terms_of`.
    """
    config, role = export.config, export.role
    num_classes = load_class_table(config.data.classes).num_classes
    size, largest = job.block_size, largest_elsewhere(len(job.train))
    return {
        name: terms_of(config, name, arm, num_classes, size, role, largest, floor.max_change)
        for name, arm in export.arms.items()
    }


def export_node_folder(
    vault: Vault,
    export: Export,
    jobs: Mapping[int, Assignment],
    agreement: Mapping[str, Terms],
    floor: Floor,
    num_workers: int,
    progress: Callable[[int, int, int], None],
) -> None:
    """Encrypt what is missing, write the policy, remove what it no longer names.

    Args:
        vault: The owner's vault.
        export: What is exported.
        jobs: Of `assignments`.
        agreement: What the owner has agreed to, by arm.
        floor: The owner's.
        num_workers: Processes that encrypt.
        progress: Called with (seed, scenes done, scenes in total).

    Raises:
        InputError: As `prepare_shards`, or the node folder is of another client or role.
    """
    with (
        vault.lock(),
        NodeDirectory.prepare(export.node, export.client, export.readers, _kinds(export)) as node,
    ):
        earlier = earlier_policy(export)
        prepared = {
            seed: prepare_locked(vault, job, num_workers, partial(progress, seed))
            for seed, job in jobs.items()
        }
        for shard in {p.shard for found in prepared.values() for p in found.values()}:
            if (manifest := read_manifest(shard)) is not None:  # a vault that was restored
                record_shard(vault.folder, shard.name, manifest.record)
        starts = _export_starts(vault, export, agreement, node)
        arms = {
            name: arm_policy(
                arm,
                {seed: found[name] for seed, found in prepared.items()},
                agreement[name],
                starts[name],
            )
            for name, arm in export.arms.items()
        }
        before = earlier or NodePolicy(
            client=export.client,
            role=export.role,
            device=export.config.device,
            arms={},
        )
        cohort = _export_cohort(vault, export, node)
        update = {"withdrawn": None, "arms": {**before.arms, **arms}, "cohort": cohort}
        policy = apply_floor(floor, before.model_copy(update=update))
        if policy != earlier:
            write_policy(node, policy)
        abandon_all(vault)
        kept = named_folders(policy, export.node) | round_folders(policy).keys()
        node.remove(read_exports(vault.folder), kept)
        node.grant(export.readers)


def _kinds(export: Export) -> tuple[Kind, ...]:
    """What the node folder has folders for."""
    return KINDS if export.config.data.fresh_views else CONTENT


def check_cohort(export: Export) -> None:
    """Check that arms of earlier configs stay in the node folder with the cohort they had.

    Raises:
        InputError: They would get another.
    """
    earlier = earlier_policy(export)
    if earlier is None or not earlier.arms.keys() - export.arms.keys():
        return
    before = earlier.cohort
    if (before and Cohort(before.keys, before.least, before.bound)) != export.cohort:
        kept = ", ".join(sorted(earlier.arms.keys() - export.arms.keys()))
        raise InputError(
            f"{export.node}: holds {kept}, agreed to with another cohort for secure aggregation, "
            "or none; choose another --out"
        )


def check_one_order(export: Export) -> None:
    """Check that arms of earlier calls, which stay in the node folder, store labels alike.

    Raises:
        InputError: One stores them in place, another in the order of its ciphertexts.
    """
    earlier = earlier_policy(export)
    if earlier is None:
        return
    asked = {arm.labels for arm in export.arms.values()}
    for name in sorted(earlier.arms.keys() - export.arms.keys()):
        folders = (folder for own in earlier.arms[name].shards.values() for folder in own)
        found = {manifest.labels for each in folders if (manifest := read_manifest(each))}
        if found - asked:
            raise InputError(
                f"{export.node}: holds label maps of arm {name} in another order, and a node with "
                "both can put the encrypted ones in place; choose another --out, for another "
                "machine"
            )


def _export_cohort(vault: Vault, export: Export, node: NodeDirectory) -> CohortPolicy | None:
    """Write the cohort key into the node folder, or remove it; what the policy says of it."""
    folder = node.folder
    if export.cohort is None:
        if folder.find(COHORT_KEY) is not None:
            folder.remove(COHORT_KEY)
        return None
    text = cohort_key_text(read_cohort_key(vault.folder / COHORT_KEY))
    folder.write(COHORT_KEY, text, file_mode(export.readers), group=export.readers)
    return CohortPolicy(key=export.node / COHORT_KEY, **export.cohort._asdict())


def _export_starts(
    vault: Vault, export: Export, agreement: Mapping[str, Terms], node: NodeDirectory
) -> dict[str, dict[int, Path]]:
    """Folders of the start weights by arm and seed, for arms whose weights are bounded."""
    from clients.vault.shards.start_model import start_of  # loads PyTorch

    config = export.config
    made: dict[tuple[int, str | None, bool], Path] = {}
    found: dict[str, dict[int, Path]] = {name: {} for name in export.arms}
    for name, arm in export.arms.items():
        if agreement[name].max_change is None:
            continue
        for seed in config.seeds:
            model = agreement[name].model
            kind = seed, embedding_reads(model, arm), model.pixel_head
            if kind not in made:
                weights = start_of(config, name, arm, agreement[name].num_classes, seed)
                made[kind] = export_start(vault.folder, node, weights, export.readers)
            found[name][seed] = made[kind]
    return found


def earlier_policy(export: Export) -> NodePolicy | None:
    """The policy of an existing node folder, whose owner's own settings are kept.

    Raises:
        InputError: It belongs to another client or role, or is damaged.
    """
    path = export.node / POLICY
    if not path.exists():
        return None
    found = load_node_policy(export.node, export.client)
    if found.role != export.role:
        raise InputError(
            f"{path}: expected the policy of {export.client} ({export.role}), got that of "
            f"{found.client} ({found.role}); choose another --out"
        )
    return found
