"""Label maps that a training node stores in the order of its ciphertexts."""

from pathlib import Path

import numpy as np
import pytest
import small_vault
from small_vault import ARMS, BLOCK, SIZE

from clients.vault.assignment import Assignment
from clients.vault.keys.keyring import Vault
from clients.vault.shards.recovery import decrypt_shard
from fl_ppseg.data.pixel_order import scaled_to_cells
from fl_ppseg.data.views import views

NAME = "per-image-invariant-spatial-labels"
DERIVED = ARMS[NAME].model_copy(update={"key_lifetime": "derived"})
PROTECTIONS = {
    "plain": ARMS["plain"],
    "in-place": DERIVED.model_copy(update={"labels": "plain"}),
    "encrypted": DERIVED,
}


@pytest.fixture(params=["resize", "crop"])
def job(request: pytest.FixtureRequest, scenes: Path, tmp_path: Path) -> Assignment:
    return small_vault.assignment(scenes, tmp_path, protections=PROTECTIONS, fit=request.param)


def in_blocks(labels: np.ndarray, side: int) -> np.ndarray:
    """(H, W) -> (num_blocks, side**2), sorted in each."""
    height, width = labels.shape
    grid = labels.reshape(height // side, side, width // side, side).swapaxes(1, 2)
    return np.sort(grid.reshape(-1, side * side), axis=-1)


def test_a_node_holds_what_each_block_shows_and_not_where(job: Assignment) -> None:
    parts = {arm: small_vault.part(folder) for arm, folder in small_vault.shards(job).items()}
    plain, found = parts["plain"], parts["encrypted"]
    assert (plain.manifest.labels, found.manifest.labels) == ("plain", "encrypted")
    assert parts["in-place"].manifest.settings != found.manifest.settings
    np.testing.assert_array_equal(parts["in-place"].labels, plain.labels)
    for view, other in zip(
        plain.labels.reshape(-1, *SIZE), found.labels.reshape(-1, *SIZE), strict=True
    ):
        np.testing.assert_array_equal(in_blocks(view, BLOCK), in_blocks(other, BLOCK))
    assert (found.labels != plain.labels).mean() > 0.02


def test_a_label_moves_with_its_pixel(job: Assignment) -> None:
    """Of each view: the pairs of colour and label are those of the plain view."""
    found = small_vault.part(small_vault.shards(job)["encrypted"])
    scene = job.train[0]
    made = list(
        views(*scene.load(), SIZE, job.data.fit, job.data.num_views, job.seed, scene.scene_id)
    )
    for (image, labels), cipher, moved in zip(made, found.images[0], found.labels[0], strict=True):
        pairs = [np.concatenate([i.reshape(3, -1), m.reshape(1, -1)]) for i, m in
                 ((image, labels), (cipher, moved))]  # fmt: skip
        one, other = (each[:, np.lexsort(each)] for each in pairs)
        np.testing.assert_array_equal(one, other)


def test_held_out_labels_move_with_the_pixels_of_their_image(job: Assignment) -> None:
    """Of each block: the pairs of colour and labels are those of the plain image."""
    parts = {arm: small_vault.part(folder) for arm, folder in small_vault.shards(job).items()}
    ((cipher, moved),) = parts["encrypted"].heldout()
    ((image, labels),) = parts["plain"].heldout()
    cell = moved.shape[0] // cipher.shape[1]
    assert moved.shape == (cell * image.shape[1], cell * image.shape[2])
    own = scaled_to_cells(labels, (image.shape[1], image.shape[2]))

    def pairs(pixels: np.ndarray, shown: np.ndarray) -> list[list[tuple[int, ...]]]:
        """Of each block, sorted."""
        _, height, width = pixels.shape
        cells = np.sort(
            shown.reshape(height, cell, width, cell)
            .transpose(1, 3, 0, 2)
            .reshape(-1, height, width),
            axis=0,
        )
        both = np.concatenate([pixels, cells])
        grid = both.reshape(len(both), height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        blocks = grid.transpose(1, 3, 2, 4, 0).reshape(-1, BLOCK**2, len(both))
        return [sorted(map(tuple, block.tolist())) for block in blocks]

    assert pairs(cipher, moved) == pairs(image, own)
    assert not np.array_equal(moved, own)


def test_the_owner_gets_labels_back(job: Assignment) -> None:
    folder = small_vault.shards(job)["encrypted"]
    back = [v for v in decrypt_shard(Vault(job.vault), folder) if v.part == "train"]
    scene = job.train[0]
    made = list(
        views(*scene.load(), SIZE, job.data.fit, job.data.num_views, job.seed, scene.scene_id)
    )
    own = [view for view in back if view.scene_id == scene.scene_id]
    for (image, labels), view in zip(made, own, strict=True):
        np.testing.assert_array_equal(view.image, image)
        np.testing.assert_array_equal(view.labels, labels)
