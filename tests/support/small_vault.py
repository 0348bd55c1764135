"""Owners with small shards, prepared in this process as a simulation does it."""

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clients.vault.assignment import Assignment
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.crypto.ciphers.encryption import decrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.shard import ShardPart, open_shard
from fl_ppseg.data.views import views

BLOCK = 8
SIZE = (32, 64)
DATA = DataConfig(image_size=SIZE, num_views=2)
ARMS = builtin_arms()
PROTECTIONS = {name: ARMS[name] for name in ("plain", "per-client", "per-image")} | {
    "per-image-per-block": ARMS["per-image-per-block"],
    "per-image-derived": ARMS["per-image"].model_copy(update={"key_lifetime": "derived"}),
}


def assignment(
    root: Path,
    vault: Path,
    client: str = "aachen",
    protections: Mapping[str, ArmConfig] = PROTECTIONS,
    **data: object,
) -> Assignment:
    scenes = open_dataset(root, load_class_table("cityscapes")).split("train")[client]
    return Assignment(
        vault / client,
        client,
        scenes[:-1],
        scenes[-1:],
        DATA.model_copy(update=data),
        BLOCK,
        seed=3,
        protections=protections,
    )


def part(folder: Path) -> ShardPart:
    return open_shard([folder]).parts[0]


def plain_views(job: Assignment) -> np.ndarray:
    """(num_images, num_views, 3, H, W), as an owner who repeats the views has them."""
    size, number = job.data.image_size, job.data.num_views
    made = [
        [image for image, _ in views(*s.load(), size, job.data.fit, number, job.seed, s.scene_id)]
        for s in job.train
    ]
    return np.array(made)


def blocks(images: np.ndarray) -> np.ndarray:
    """(..., 3, H, W) -> (..., num_blocks, L)."""
    flat = images.reshape(-1, *images.shape[-3:])
    return np.stack([to_blocks(image, BLOCK) for image in flat])


def shards(job: Assignment) -> dict[str, Path]:
    """Folder of the shard of each arm."""
    return {arm: prepared.shard for arm, prepared in prepare_shards(job).items()}


def record_of(job: Assignment, folder: Path) -> Path:
    """The owner's file with the salts of a shard."""
    return job.vault / "manifests" / f"{part(folder).manifest.record}.json"


def salts(job: Assignment, folder: Path) -> dict[str, bytes]:
    kept = json.loads(record_of(job, folder).read_text("utf-8"))["salts"]
    return {name: bytes.fromhex(salt) for name, salt in kept.items()}


def opened(images: np.ndarray, key: SubKey) -> np.ndarray:
    """(..., 3, H, W) ciphertexts of a `common` shuffle -> plain images."""
    flat = np.array(images).reshape(-1, *images.shape[-3:])
    plain = [decrypt(image, key, "shuffle", block_size=BLOCK, scope="common") for image in flat]
    return np.stack(plain).reshape(images.shape)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
