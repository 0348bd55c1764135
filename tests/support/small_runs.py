"""Run folders of small models that nobody trained, as a run leaves them."""

import json
from pathlib import Path
from typing import Any

import small_federation as small
import torch

from fl_ppseg.config import run_layout
from fl_ppseg.config.cipher_versions import versions_of
from fl_ppseg.config.loading import builtin_arms, dump_config
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.description import Description
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.federation.run_summary import SCHEMA
from fl_ppseg.setr.build import build_setr

SIZE = (32, 64)
CLASSES = load_class_table("cityscapes")
SCORES = {"plain": 40.2, "per-image-invariant": 32.0}


def add_checkpoint(
    run: Path, arm: str, fit: str = "resize", names: tuple[str, ...] = CLASSES.names, round: int = 2
) -> Path:
    """The folder of an arm in a run, with a checkpoint of a model whose classes are all likely."""
    protection = builtin_arms()[arm]
    section = ModelConfig.model_validate(small.SETTINGS["model"])
    settings = model_settings(section, arm, protection)
    model = build_setr(settings, len(names), SIZE, seed=round)
    generator = torch.Generator().manual_seed(round)
    for tensor in model.parameters():  # of a fresh model all classes are all but equally likely
        tensor.data += 0.3 * torch.randn(tensor.shape, generator=generator)
    about: dict[str, Any] = {
        "arm": arm,
        "seed": 0,
        "model": settings.model_dump(mode="json"),
        "classes": list(names),
        "image_size": list(SIZE),
        "fit": fit,
        "protection": protection.model_dump(mode="json"),
        "ciphers": versions_of(protection.cipher),
    }
    checkpoint = Checkpoint(round, small.arrays_of(model), {}, Description.model_validate(about))
    RunFolder(run).save(checkpoint, keep=3)
    return run / arm


def add_results(run: Path, classes: str = "cityscapes") -> None:
    """What else a run folder says: config, partition, scores."""
    config = Config.model_validate(
        small.SETTINGS | {"data": small.SETTINGS["data"] | {"classes": classes}}
    )
    run.mkdir(exist_ok=True)
    (run / run_layout.CONFIG).write_text(dump_config(config))
    clients = {"aachen": {"aachen": ["1", "2"]}, "bo*chum": {"bochum": ["3"]}}
    (run / run_layout.PARTITION).write_text(json.dumps({"clients": clients}))
    arms = {
        name: {"mIoU": miou, "aAcc": 70.0, "per_seed": [{"seed": 0}]}
        for name, miou in SCORES.items()
    }
    summary = {"schema": SCHEMA, "no_image": {"mIoU": 14.4, "aAcc": 53.5}, "arms": arms}
    (run / run_layout.SUMMARY).write_text(json.dumps(summary))
