"""Scene panels of a report: one scene of each val city, plain, encrypted, labelled, predicted.

Pictures of encrypted scenes use throw-away keys, never an owner's.
"""

from collections.abc import Mapping

import torch

from clients.vault import throwaway_encryption
from fl_ppseg.config import ArmConfig, Config, ModelConfig, arms_of
from fl_ppseg.dataset import Scene
from fl_ppseg.evaluation import segment
from fl_ppseg.preparation import Experiment
from fl_ppseg.report.scenes import ScenePanel
from fl_ppseg.run_folder import Checkpoint, RunFolder
from fl_ppseg.setr.model import SETR, build_setr
from fl_ppseg.views import fit


def scene_panels(experiment: Experiment) -> list[ScenePanel]:
    """A panel for the middle scene of each val city, with the newest weights of each arm."""
    config = experiment.config
    models = {
        arm: model_of(checkpoint)
        for arm in config.arms
        if (checkpoint := latest(experiment.folder, arm, config.seeds[0])) is not None
    }
    cities = experiment.dataset.split("val").values()
    return [_panel(config, scenes[len(scenes) // 2], models) for scenes in cities]


def latest(folder: RunFolder, arm: str, seed: int) -> Checkpoint | None:
    """The newest trained checkpoint whose weights are one model."""
    checkpoint = folder.latest(arm, seed)
    is_one = checkpoint is not None and not any("//" in name for name in checkpoint.arrays)
    return checkpoint if is_one and checkpoint and checkpoint.round else None


def model_of(checkpoint: Checkpoint) -> SETR:
    """The model that a checkpoint describes, with its weights."""
    settings = ModelConfig.model_validate(checkpoint.description["model"])
    settings = settings.model_copy(update={"pretrained": False, "weights": None})
    height, width = checkpoint.description["image_size"]
    num_classes = len(checkpoint.description["classes"])
    model = build_setr(settings, num_classes, (height, width), seed=0)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.arrays.items()})
    return model.eval()


def _panel(config: Config, scene: Scene, models: Mapping[str, SETR]) -> ScenePanel:
    image, labels = scene.load()
    fitted, _ = fit(image, labels, config.data.image_size, config.data.fit)
    arms = arms_of(config)
    encrypted, predictions = {}, {}
    for name, model in models.items():
        cipher = throwaway_encryption(arms[name], model.patch_size)(fitted)
        if arms[name].cipher is not None:
            encrypted[_label(arms[name])] = cipher.transpose(1, 2, 0)
        with torch.inference_mode():
            size = (labels.shape[0], labels.shape[1])
            predictions[name] = segment(model, torch.from_numpy(cipher)[None], size)[0].numpy()
    return ScenePanel(
        city=scene.city,
        plain=image.transpose(1, 2, 0),
        plain_note="procedural scene" if config.data.root is None else "your own data",
        encrypted=encrypted,
        label_map=labels,
        predictions={k: v.astype("uint8") for k, v in predictions.items()},
    )


def _label(arm: ArmConfig) -> str:
    return f"{arm.cipher}, {arm.block_scope}"
