"""Windows of encrypted frames: what is cut, where, and by which draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import small_vault
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_vault import ARMS, BLOCK

from clients.vault.assignment import shard_digest
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.sections import ModelConfig, TrainingConfig
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.arm_images import check_windows
from fl_ppseg.crypto.ciphers import registry
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.shuffle import Shuffle
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.manifest import Manifest
from fl_ppseg.data.pixels import to_input
from fl_ppseg.data.shard import Shard, ShardPart, open_shard
from fl_ppseg.data.windows import choose, draw_places, num_places
from fl_ppseg.learning.batches import batches, steps_of
from fl_ppseg.learning.training import Position, local_update
from fl_ppseg.setr.build import build_setr
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

FRAME, WINDOW = (32, 64), (16, 32)
FRAMES: dict[str, Any] = {"fit": "crop", "image_size": WINDOW, "frame_size": FRAME, "num_views": 2}
INVARIANT = "per-image-invariant-spatial-labels"
PROTECTIONS = {
    "plain": ARMS["plain"],
    "per-client": ARMS["per-client"],
    "labels": ARMS[INVARIANT],
}
PART = (slice(None), slice(8, 24), slice(24, 56))
"""A window between blocks of 8."""


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (3, *FRAME), dtype=np.uint8)


@pytest.mark.parametrize("cipher", [*registry.CIPHERS, "shuffle+negative-positive"])
def test_a_window_of_a_ciphertext_is_the_ciphertext_of_the_window(cipher: str) -> None:
    key, image = SubKey.generate(), frame()
    whole = encrypt(image, key, cipher, block_size=8, scope="common")
    alone = encrypt(np.ascontiguousarray(image[PART]), key, cipher, block_size=8, scope="common")
    np.testing.assert_array_equal(whole[PART], alone)
    assert (alone != image[PART]).any()
    check_windows(cipher, FRAME, WINDOW, 8)


def test_invariant_and_private_embeddings_read_a_window_of_a_ciphertext() -> None:
    image, key = frame(), SubKey.generate()
    window = np.ascontiguousarray(image[PART])

    invariant = small.model(invariant="pixels").backbone.patch_embed
    invariant.img_size = None
    per_block = encrypt(image, key, "shuffle-spatial", block_size=8, scope="per-block")
    seen, plain = (
        invariant(to_input(torch.from_numpy(np.ascontiguousarray(each))[None]))
        for each in (per_block[PART], window)
    )
    assert torch.equal(seen, plain)

    model = small.model()
    model.backbone.patch_embed.strict_img_size = False
    public = {name: model.state_dict()[name] for name in EMBEDDING_TENSORS}
    plain = model.backbone.patch_embed(to_input(torch.from_numpy(window)[None]))
    model.load_state_dict(adapted_embedding(public, "shuffle", "common", key), strict=False)
    ciphertext = encrypt(image, key, "shuffle", block_size=8, scope="common")[PART]
    seen = model.backbone.patch_embed(to_input(torch.from_numpy(ciphertext.copy())[None]))
    torch.testing.assert_close(seen, plain, rtol=1e-4, atol=1e-5)


class Scrambling(Shuffle):
    """Puts blocks in another order as well."""

    def encrypt(self, blocks: Any, *arguments: Any, **options: Any) -> Any:
        return super().encrypt(blocks, *arguments, **options)[::-1]


def test_a_cipher_that_moves_blocks_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CIPHERS", {"shuffle": Scrambling()})
    with pytest.raises(InputError, match="does not leave blocks in their places") as refused:
        check_windows("shuffle", FRAME, WINDOW, 8)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fit": "resize"}, "set fit to crop"),
        (
            {"frame_size": [24, 32]} | {"image_size": [32, 32]},
            "image_size 32x32 or more, got 24x32",
        ),
        ({"frame_size": [0, 64]}, "greater than 0"),
    ],
)
def test_frames_that_cannot_be_meant(values: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig.model_validate(FRAMES | values)


@pytest.mark.parametrize("size", [(36, 64), (32, 60), (8, 64)])
def test_frames_are_whole_blocks_and_no_smaller_than_a_window(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"whole blocks of 8 pixels and at least .* 16x32, got"):
        check_windows(None, size, WINDOW, 8)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.integers(0, 2**32),
)
def test_every_place_lies_between_blocks_and_inside(
    window: tuple[int, int], spare: tuple[int, int], seed: int
) -> None:
    own = (window[0] * 4, window[1] * 4)
    size = (own[0] + 4 * spare[0], own[1] + 4 * spare[1])
    number = num_places(size, own, 4)
    assert number == (spare[0] + 1, spare[1] + 1)
    places = draw_places(np.random.default_rng(seed), 3, number)
    labels = np.random.default_rng(seed).integers(0, 3, size, dtype=np.uint8)
    for some in places:
        for cut, side, part in zip(choose(labels, some, own, 4), size, own, strict=True):
            assert cut.start % 4 == 0 and 0 <= cut.start <= cut.stop <= side
            assert cut.stop - cut.start == part


def test_all_places_are_drawn_and_what_is_not_labelled_is_passed_over() -> None:
    places = draw_places(np.random.default_rng(0), 400, (2, 3))
    assert {tuple(each) for each in places.reshape(-1, 2).tolist()} == {
        (row, column) for row in range(2) for column in range(3)
    }
    labels = np.full((16, 24), 255, np.uint8)
    labels[8:, 8:20] = np.arange(12) % 4
    some = np.array([[0, 0], [0, 2], [1, 1], [1, 2]])
    assert choose(labels, some, (8, 8), 8) == (slice(8, 16), slice(8, 16))
    assert choose(labels, some[:2], (8, 8), 8) == (slice(0, 8), slice(16, 24))


@pytest.fixture
def shards(scenes: Path, tmp_path: Path) -> dict[str, Shard]:
    job = small_vault.assignment(scenes, tmp_path, protections=PROTECTIONS, **FRAMES)
    return {arm: open_shard([folder]) for arm, folder in small_vault.shards(job).items()}


def test_a_shard_holds_frames_and_gives_windows_of_them(shards: dict[str, Shard]) -> None:
    assert BLOCK == 8
    for shard in shards.values():
        (part,) = shard.parts
        assert part.images.shape[-2:] == part.labels.shape[-2:] == FRAME
        assert (shard.image_size, shard.num_places) == (WINDOW, (3, 5))
        places = draw_places(np.random.default_rng(1), 3, shard.num_places)
        images, labels = shard.windows([2, 0, 1], [1, 0, 1], places)
        for number, (index, view) in enumerate([(2, 1), (0, 0), (1, 1)]):
            cut = choose(part.labels[index, view], places[number], WINDOW, BLOCK)
            np.testing.assert_array_equal(images[number], part.images[index, view][:, *cut])
            np.testing.assert_array_equal(labels[number], part.labels[index, view][cut])


def test_labels_that_moved_lead_to_the_same_windows(shards: dict[str, Shard]) -> None:
    plain, moved = shards["plain"], shards["labels"]
    assert (plain.parts[0].labels != moved.parts[0].labels).any()
    places = draw_places(np.random.default_rng(1), len(plain), plain.num_places)
    found = {
        arm: [
            choose(shard.parts[0].labels[number, 1], places[number], WINDOW, BLOCK)
            for number in range(len(shard))
        ]
        for arm, shard in shards.items()
    }
    assert found["labels"] == found["plain"] == found["per-client"]
    assert len({str(cut) for cut in found["plain"]}) > 1


def drawn(shard: Shard, seed: int) -> list[tuple[bytes, bytes]]:
    generator = np.random.default_rng(seed)
    steps = steps_of(shard, TrainingConfig(batch_size=2, local_epochs=2), generator)
    return [
        (images.numpy().tobytes(), labels.numpy().tobytes())
        for images, labels, _ in batches(shard, steps, torch.device("cpu"))
    ]


def test_windows_follow_from_the_seed(shards: dict[str, Shard]) -> None:
    shard = shards["plain"]
    assert drawn(shard, 1) == drawn(shard, 1) != drawn(shard, 2)
    section = ModelConfig.model_validate(small.SETTINGS["model"])
    small_model = build_setr(section, small.NUM_CLASSES, WINDOW, seed=0)
    weights = small.weights_of(small_model)
    config, first = TrainingConfig(batch_size=2), Position(1, 4)
    found = [
        small.bits(local_update(small_model, weights, {}, shard, config, *at).weights)
        for at in ((first, 0), (first, 0), (Position(2, 4), 0), (first, 1))
    ]
    assert found[0] == found[1] and len(set(found)) == 3


def test_views_as_large_as_the_window_are_drawn_as_before() -> None:
    """No draw is added where there is one place, so that runs of before repeat their bits."""
    images = np.zeros((5, 2, 3, *WINDOW), np.uint8)
    empty = np.zeros(0, np.uint8)
    manifest = Manifest(4, "ulm", "", 8, 5, 2, [])
    shard = Shard([ShardPart(manifest, images, images[:, :, 0], empty, empty)])
    generator = np.random.default_rng(0)
    steps = steps_of(shard, TrainingConfig(batch_size=2, local_epochs=2), generator)
    assert all(step.places is None for step in steps)
    twin = np.random.default_rng(0)
    for _ in range(2):
        twin.permutation(5), twin.integers(2, size=5)
    assert twin.random() == generator.random()


def test_shards_of_other_frames_have_other_names(scenes: Path, tmp_path: Path) -> None:
    def name(**data: Any) -> str:
        job = small_vault.assignment(scenes, tmp_path, **data)
        return shard_digest(job, ARMS["plain"], None)

    frames = {**FRAMES, "frame_size": None}
    assert len({name(**frames), name(**FRAMES), name(**FRAMES | {"frame_size": (24, 64)})}) == 3


def test_the_agreement_says_both_sizes() -> None:
    frames = DataConfig.model_validate(FRAMES)
    assert frames.sizes_text == "32x64 pixels (crop; a step sees windows of 16x32)"
    assert DataConfig().sizes_text == "64x128 pixels (resize)"
