"""What the audit's owner makes: ciphertexts of the arm's own scheme, under keys that it knows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fl_ppseg.audit import plan
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.jobs import Attempt
from fl_ppseg.audit.material import Holdings, Scenes, encrypted_apart, holdings, read_scenes
from fl_ppseg.audit.message_plan import Shown
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.blocks import to_blocks
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

DATA = DataConfig(image_size=(16, 32))
BLOCK = 8
EMBEDDING, BIAS = EMBEDDING_TENSORS
WEIGHTS = {EMBEDDING: torch.randn(5, 3, BLOCK, BLOCK), BIAS: torch.zeros(5)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    root = tmp_path_factory.mktemp("scenes")
    synthesize(root / "tree", num_train=60, num_val=6, size=(32, 64), seed=1)
    return read_scenes(open_dataset(root / "tree", load_class_table("cityscapes")), DATA, 2, 20)


def held(scenes: Scenes, arm: str, **changes: str) -> Holdings:
    protection = builtin_arms()[arm].model_copy(update=changes)
    return holdings(arm, protection, scenes, WEIGHTS, BLOCK)


def test_targets_are_of_the_largest_client_and_nobody_else_has_them(scenes: Scenes) -> None:
    assert scenes.client == "strasbourg"
    assert scenes.targets.shape == (2, 3, 16, 32) and scenes.labels.shape == (2, 16, 32)
    assert len(scenes.public) == len(scenes.public_labels) == 20
    for image in scenes.targets:
        others = np.concatenate([scenes.others, scenes.public])
        assert not (others == image).all(axis=(1, 2, 3)).any()
    assert [s.stem for s in scenes.sources] == sorted(s.stem for s in scenes.sources)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    synthesize(tmp_path / "tree", num_train=36, num_val=6, size=(32, 64), seed=1)
    tree = open_dataset(tmp_path / "tree", load_class_table("cityscapes"))
    with pytest.raises(InputError, match="--targets"):
        read_scenes(tree, DATA, 50, 10)


def test_a_plain_arm_hands_the_images_over(scenes: Scenes) -> None:
    arm = held(scenes, "plain")
    np.testing.assert_array_equal(arm.ciphertexts, scenes.targets)
    assert not arm.is_encrypted and arm.form is None and arm.key is None and arm.embedding is None


@pytest.mark.parametrize(
    ("cipher", "form", "survives"),
    [
        ("shuffle-spatial+negative-positive", "pixel-magnitudes", "pixel-magnitudes"),
        ("etc", "magnitudes", "sub-blocks"),
        ("negative-positive", "magnitudes", "placed-magnitudes"),
        ("ffx", None, None),
    ],
)
def test_what_survives_may_be_more_than_an_embedding_reads(
    cipher: str, form: str | None, survives: str | None, scenes: Scenes
) -> None:
    arm = held(scenes, "per-image-per-block", cipher=cipher)
    assert (arm.form, arm.survives) == (form, survives)


def test_networks_read_what_survives_and_of_messages_what_the_embedding_read(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = held(scenes, "per-image-invariant", cipher="etc")

    def attempt(attack: str, note: str) -> Attempt:
        return Attempt(attack, "active-coordinator", (arm.arm,), scenes.targets, note)

    found = Shown("imprint", lambda: None, attempt, 1.0)
    monkeypatch.setattr(plan, "shown", lambda *_: found)
    monkeypatch.setattr(plan, "of_messages", lambda *_: ())
    jobs = list(plan.planned(scenes, [arm], {arm.arm: [None]}, 19, Budget(2)))  # type: ignore[list-item]
    notes = {each.attack: each.note for job in jobs for each in job.attempts}
    assert "canonical form sub-blocks" in notes["survivor-network"]
    assert "canonical form sub-blocks" in notes["thumbnail"]
    assert "canonical form magnitudes" in notes["imprint+network"]
    assert "statistics" in notes
    (messages,) = (job for job in jobs if job.attempts[0].attack == "imprint+network")
    assert messages.run() == (None,)


def test_a_reused_key_does_the_same_to_all_images(scenes: Scenes) -> None:
    arm = held(scenes, "per-client-private")
    assert arm.reuses_key and arm.key is not None
    plain = np.concatenate([scenes.targets, scenes.others])
    np.testing.assert_array_equal(
        to_blocks(arm.shard, BLOCK), to_blocks(plain, BLOCK)[..., arm.key.index]
    )
    np.testing.assert_array_equal(arm.encrypt(arm.pairs[0]), arm.pairs[1])
    assert arm.embedding is not None
    flat = arm.public_embedding.reshape(5, -1)
    np.testing.assert_array_equal(arm.embedding.reshape(5, -1), flat[:, arm.key.index])


def test_a_key_an_image_is_never_used_twice(scenes: Scenes) -> None:
    arm = held(scenes, "per-image")
    assert not arm.reuses_key and arm.key is None
    assert (arm.encrypt(scenes.targets) != arm.ciphertexts).any()


@pytest.mark.parametrize(
    ("cipher", "moves", "inverts", "substitutes"),
    [
        ("shuffle", "values", False, False),
        ("shuffle-spatial", "pixels", False, False),
        ("shuffle-spatial+negative-positive", "pixels", True, False),
        ("negative-positive", "nothing", True, False),
        ("ffx", "nothing", False, True),
        ("etc", "values", True, False),
    ],
)
def test_what_a_cipher_may_do_is_public(
    scenes: Scenes, cipher: str, moves: str, inverts: bool, substitutes: bool
) -> None:
    found = held(scenes, "per-image-per-block", cipher=cipher).algorithm
    assert (found.moves, found.inverts, found.substitutes) == (moves, inverts, substitutes)


def test_own_images_get_a_key_each(scenes: Scenes) -> None:
    setting = ArmConfig(
        note="", key_mode="per-client", cipher="shuffle", block_scope="common",
        key_lifetime="derived",
    )  # fmt: skip
    twice = np.repeat(scenes.public[:1], 2, axis=0)
    first, second = encrypted_apart(twice, setting, BLOCK)
    assert (first != second).any()
    np.testing.assert_array_equal(
        np.sort(to_blocks(first, BLOCK)), np.sort(to_blocks(second, BLOCK))
    )
