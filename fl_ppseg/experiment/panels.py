"""Scene panels of a report: one scene of each val client, plain, encrypted, labelled, predicted.

Pictures of encrypted scenes use ephemeral keys, never an owner's or the shared one. Of a user's own
data a panel shows a reserved scene, which is in no shard: a plain image beside its encryption under
a client's permutation would reveal that permutation. Procedural scenes are public.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch

from clients.query import KEYS, shared_query
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.views import fit
from fl_ppseg.experiment.data_notes import reserved_scene
from fl_ppseg.experiment.preparation import Experiment
from fl_ppseg.federation.checkpoints import latest, model_of, protection_of, weights_of
from fl_ppseg.learning.evaluation import segment
from fl_ppseg.learning.owner_view import owner_view
from fl_ppseg.query.ephemeral import Query, ephemeral_query
from fl_ppseg.report.pictures import Image8
from fl_ppseg.report.scenes import CipherGallery, ScenePanel
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.errors import InputError

logger = logging.getLogger(__name__)

PRODUCTS: Final = ("shuffle+negative-positive", "shuffle-spatial+negative-positive")
"""Products of ciphers in the gallery, after the ciphers."""


class _Arm(NamedTuple):
    """A trained arm: its model, and what the owners of queries know."""

    protection: ArmConfig
    weights: Mapping[str, torch.Tensor]
    model: SETR


def scene_panels(experiment: Experiment) -> list[ScenePanel]:
    """A panel for the middle scene of each val client, with the newest weights of each arm.

    Of the user's own data, clients without a reserved scene have none.
    """
    config = experiment.config
    arms = {
        arm: _Arm(protection_of(checkpoint), weights_of(checkpoint), model_of(checkpoint))
        for arm in config.arms
        if (checkpoint := latest(experiment.folder, arm, config.seeds[0])) is not None
    }
    return [_panel(config, scene, arms, experiment.vault_dir) for scene in _shown(experiment)]


def cipher_gallery(experiment: Experiment) -> CipherGallery | None:
    """The scene of the first panel under every cipher, one key per block; None if none is shown."""
    scene, config = next(iter(_shown(experiment)), None), experiment.config
    checkpoint = experiment.folder.latest(config.arms[0], config.seeds[0])
    if scene is None or checkpoint is None:
        return None
    block_size = checkpoint.description.patch_size
    image, _ = fit(*scene.load(), config.data.image_size, config.data.fit)
    encrypted = {}
    for cipher in (*CIPHERS, *PRODUCTS):
        try:
            key = SubKey.generate()
            ciphertext = encrypt(image, key, cipher, block_size=block_size, scope="per-block")
        except InputError as error:  # some ciphers need blocks with an even side
            logger.info("no picture of cipher %s: %s", cipher, error)
            continue
        encrypted[cipher] = ciphertext.transpose(1, 2, 0)
    return CipherGallery(image.transpose(1, 2, 0), _note(config), encrypted)


def _shown(experiment: Experiment) -> list[Scene]:
    """The scenes that a report may show plain, one per val client."""
    clients = experiment.dataset.split("val").values()
    data = experiment.config.data
    shown = (
        scenes[len(scenes) // 2] if data.root is None else reserved_scene(scenes, data)
        for scenes in clients
    )
    return [scene for scene in shown if scene is not None]


def _panel(config: Config, scene: Scene, arms: Mapping[str, _Arm], vault_dir: Path) -> ScenePanel:
    image, whole = scene.load()
    fitted, window = fit(image, whole, config.data.image_size, config.data.fit)
    # as large as the label map: of a large frame the window in its middle
    shown, labels = (image, whole) if config.data.fit == "resize" else (fitted, window)
    size = (labels.shape[0], labels.shape[1])
    encrypted, predictions, key_predictions = {}, {}, {}
    for name, arm in arms.items():
        if arm.protection.cipher is not None:
            picture = ephemeral_query(arm.protection, arm.model.patch_size, arm.weights)
            encrypted[_label(arm.protection)] = picture.encrypt(fitted).transpose(1, 2, 0)
        queries = _queries(arm, vault_dir)
        answers = {key: _answer(arm.model, query, fitted, size) for key, query in queries.items()}
        predictions[name] = answers["right"]
        if len(answers) > 1:
            key_predictions[name] = answers
    return ScenePanel(
        client=scene.city,
        plain=shown.transpose(1, 2, 0),
        plain_note=_note(config),
        encrypted=encrypted,
        label_map=labels,
        predictions=predictions,
        key_predictions=key_predictions,
    )


def _queries(arm: _Arm, vault_dir: Path) -> dict[str, Query]:
    """Queries by key: all `KEYS` if it is shared, else a new right key."""
    protection, block_size = arm.protection, arm.model.patch_size
    if protection.key_mode != "shared":
        return {"right": ephemeral_query(protection, block_size, arm.weights)}
    shared = ensure_shared_subkey(vault_dir, protection)
    return {key: shared_query(protection, key, shared, block_size, arm.weights) for key in KEYS}


def _answer(model: SETR, query: Query, image: Image8, size: tuple[int, int]) -> Image8:
    """(3, H, W) uint8 -> (h, w) uint8 predicted trainIds at `size` = (h, w)."""
    query.load_into(model)
    ciphertext, order = query.encrypt_keeping_order(image)
    with torch.inference_mode():
        seen = owner_view(model, model, [order])
        answer = segment(seen, torch.from_numpy(ciphertext)[None], size)[0]
    return answer.numpy().astype(np.uint8)


def _label(arm: ArmConfig) -> str:
    return f"{arm.cipher}, {arm.block_scope}"


def _note(config: Config) -> str:
    return "procedural scene" if config.data.root is None else "your own data"
