"""Makes private embeddings from the public weights and the client's key."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from clients.private_state import load_start, save_start
from clients.vault.assignment import Assignment, digest
from clients.vault.keys.keyring import Vault
from clients.vault.node_folders.exports import make_private_folder
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.manifest import read_manifest
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)


def prepare_private(vault: Vault, job: Assignment, arm: str, shard: str) -> Path | None:
    """Make the private embedding that belongs to a shard; an existing one is kept.

    Versions that the node trains lie in the node's own state folder.

    Args:
        vault: The owner's vault.
        job: Its public weights and protections.
        arm: An arm of the job.
        shard: Digest of the arm's shard.

    Returns:
        Its folder; None for an arm without a private embedding.

    Raises:
        InputError: The cipher is not linear, or the owner's record is damaged.
    """
    protection = job.protections[arm]
    manifest = read_manifest(job.shard_folder(shard))
    if protection.embedding != "private" or manifest is None or manifest.record is None:
        return None
    key, record = vault.find(manifest.record)
    subkey = record.subkey(key, "train", "", 0)  # the client's own, the same for every view
    folder = make_private_folder(vault.folder, job, _digest(job, arm, shard, subkey))
    if not _is_whole(folder):
        for left in folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink()
        save_start(folder, _make_start(job, protection, subkey))
    return folder


def _make_start(job: Assignment, protection: ArmConfig, subkey: SubKey) -> Arrays:
    """The adapted embedding, or a random one; who does not train needs the adapted one."""
    from clients.vault.shards.embedding import adapt_embedding, draw_embedding  # loads PyTorch

    if protection.private_start == "random" and job.train:
        return draw_embedding(job.public)
    return adapt_embedding(job.public, protection, subkey)


def _is_whole(folder: Path) -> bool:
    """Whether the start is intact; logs why a damaged one will be made again."""
    try:
        load_start(folder)
    except InputError as error:
        if any(folder.iterdir()):
            logger.warning("%s", error)
        return False
    return True


def _digest(job: Assignment, arm: str, shard: str, subkey: SubKey) -> str:
    """Digest of everything that a private embedding depends on; if trained, also run and arm."""
    protection = job.protections[arm]
    settings = {
        "shard": shard,
        "key": subkey.fingerprint,
        "public": _hash(job.public),
        "start": protection.private_start if job.train else "adapted",
    }
    is_trained = protection.private_rate > 0
    return digest(settings | ({"run": job.run, "arm": arm} if is_trained else {}))


def _hash(arrays: Arrays) -> str:
    found = hashlib.sha256()
    for name in EMBEDDING_TENSORS:
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
