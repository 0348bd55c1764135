"""Scene panels of a report: one scene of each val city, plain, encrypted, labelled, predicted.

Pictures of encrypted scenes use throw-away keys, never an owner's. Of a user's own data a panel
shows a reserved scene, which no shard holds: beside its encryption under a city's one permutation a
plain image would give that permutation away. Procedural scenes are public, whoever shows them.
"""

from collections.abc import Mapping

import torch

from clients.vault import throwaway_encryption
from fl_ppseg.config import ArmConfig, Config, ModelConfig, arms_of
from fl_ppseg.dataset import Scene
from fl_ppseg.evaluation import segment
from fl_ppseg.preparation import Experiment, reserved_scene
from fl_ppseg.report.scenes import ScenePanel
from fl_ppseg.run_folder import Checkpoint, RunFolder
from fl_ppseg.setr.model import SETR, build_architecture
from fl_ppseg.views import fit_for_scoring


def scene_panels(experiment: Experiment) -> list[ScenePanel]:
    """A panel for the middle scene of each val city, with the newest weights of each arm.

    Of the user's own data, cities without a reserved scene have none.
    """
    config = experiment.config
    models = {
        arm: model_of(checkpoint)
        for arm in config.arms
        if (checkpoint := latest(experiment.folder, arm, config.seeds[0])) is not None
    }
    cities = experiment.dataset.split("val").values()
    is_public = config.data.root is None
    shown = (scenes[len(scenes) // 2] if is_public else reserved_scene(scenes) for scenes in cities)
    return [_panel(config, scene, models) for scene in shown if scene is not None]


def latest(folder: RunFolder, arm: str, seed: int) -> Checkpoint | None:
    """The newest trained checkpoint whose weights are one model."""
    checkpoint = folder.latest(arm, seed)
    if checkpoint is None or checkpoint.is_per_city or checkpoint.round == 0:
        return None
    return checkpoint


def model_of(checkpoint: Checkpoint) -> SETR:
    """The model that a checkpoint describes, with its weights."""
    settings = ModelConfig.model_validate(checkpoint.description["model"])
    height, width = checkpoint.description["image_size"]
    num_classes = len(checkpoint.description["classes"])
    model = build_architecture(settings, num_classes, (height, width))
    model.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.arrays.items()})
    return model.eval()


def _panel(config: Config, scene: Scene, models: Mapping[str, SETR]) -> ScenePanel:
    image, whole = scene.load()
    fitted, labels = fit_for_scoring(image, whole, config.data.image_size, config.data.fit)
    shown = image if config.data.fit == "resize" else fitted  # as large as the labels
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
        plain=shown.transpose(1, 2, 0),
        plain_note="procedural scene" if config.data.root is None else "your own data",
        encrypted=encrypted,
        label_map=labels,
        predictions={k: v.astype("uint8") for k, v in predictions.items()},
    )


def _label(arm: ArmConfig) -> str:
    return f"{arm.cipher}, {arm.block_scope}"
