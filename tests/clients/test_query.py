"""What a query's owner does: keys of its own, and an embedding that reads them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_federation as small
import torch
from torch import Tensor

from clients.query import KEYS, load_shared_subkey, shared_query
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import fit_for_scoring
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.learning.evaluation import evaluate, resized_logits, score
from fl_ppseg.query.ephemeral import Query, ephemeral_query
from fl_ppseg.scenes.tree import synthesize
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

BLOCK = 8
SIZE = (64, 128)
ARMS = builtin_arms()
SHARED = sorted(name for name, arm in ARMS.items() if arm.key_mode == "shared")
PRIVATE = sorted(name for name, arm in ARMS.items() if arm.embedding == "private")
INVARIANT = {
    "per-image-invariant-shuffle": "values",
    "per-image-invariant-spatial": "pixels",
    "per-image-invariant-np": "magnitudes",
    "per-image-invariant": "pixel-magnitudes",
}
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 32, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter() -> SETR:
    """The shipped weights: a model that really segments."""
    return initial_model(Config(), small.NUM_CLASSES, 0).eval()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four procedural scenes at the model's size, with their labels."""
    root = tmp_path_factory.mktemp("query") / "tree"
    synthesize(root, num_train=0, num_val=4, size=SIZE, cities=({}, {"ulm": 4}))
    scenes = open_dataset(root, load_class_table("cityscapes"), required=("val",)).split("val")[
        "ulm"
    ]
    return [fit_for_scoring(*scene.load(), SIZE, "resize", 8) for scene in scenes]


def logits(model: SETR, images: np.ndarray) -> Tensor:
    with torch.inference_mode():
        return resized_logits(model, torch.from_numpy(images), SIZE)


def answered(model: SETR, query: Query, images: np.ndarray) -> Tensor:
    """Logits of a model that has the query's embedding in place, and its own again afterwards."""
    own = small.weights_of(model)
    query.load_into(model)
    answer = logits(model, np.stack([query.encrypt(image) for image in images]))
    model.load_state_dict(own)
    return answer


# Throw-away keys.


@pytest.mark.parametrize("arm", sorted(ARMS))
def test_an_ephemeral_key_serves_one_query_or_one_image(arm: str) -> None:
    public = small.weights_of(small.model())
    query, other = (ephemeral_query(ARMS[arm], BLOCK, public) for _ in range(2))
    once, again = query.encrypt(IMAGE), query.encrypt(IMAGE)
    is_plain = ARMS[arm].key_mode == "plain"
    assert np.array_equal(once, IMAGE) == is_plain
    assert np.array_equal(once, again) == (ARMS[arm].key_mode != "per-image")
    assert np.array_equal(once, other.encrypt(IMAGE)) == is_plain
    assert (query.embedding is not None) == (arm in PRIVATE)


@pytest.mark.parametrize("arm", PRIVATE)
@pytest.mark.parametrize("cipher", ["shuffle", "shuffle-spatial", "shuffle+negative-positive"])
def test_a_private_query_is_answered_as_the_plain_image(
    arm: str, cipher: str, segmenter: SETR, samples: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    protection = ARMS[arm].model_copy(update={"cipher": cipher})
    images = np.stack([image for image, _ in samples])
    plain = logits(segmenter, images)
    first, second = (ephemeral_query(protection, BLOCK, segmenter.state_dict()) for _ in range(2))
    assert first.embedding is not None and second.embedding is not None
    assert first.embedding.keys() == set(EMBEDDING_TENSORS)
    assert small.bits(first.embedding) != small.bits(second.embedding)
    torch.testing.assert_close(answered(segmenter, first, images), plain, atol=1e-4, rtol=1e-4)
    mixed = replace(first, embedding=second.embedding)
    assert not torch.allclose(answered(segmenter, mixed, images), plain, atol=1e-1)


def test_a_private_query_needs_a_cipher_that_embeddings_can_follow() -> None:
    protection = ARMS["per-client-private"].model_copy(update={"cipher": "ffx"})
    with pytest.raises(InputError, match="ffx"):
        ephemeral_query(protection, BLOCK, small.model().state_dict())


@pytest.mark.parametrize("arm", sorted(INVARIANT))
def test_an_invariant_query_is_answered_alike_under_every_key(arm: str) -> None:
    model = small.model(invariant=INVARIANT[arm]).eval()
    queries = [ephemeral_query(ARMS[arm], BLOCK, model.state_dict()) for _ in range(2)]
    once, again = (query.encrypt(IMAGE)[None] for query in queries)
    assert not np.array_equal(once, again)
    torch.testing.assert_close(logits(model, once), logits(model, again), atol=0, rtol=0)


def test_load_into_changes_the_embedding_alone() -> None:
    model = small.model()
    before = small.weights_of(model)
    Query(lambda: None, ARMS["plain"], BLOCK, None).load_into(model)
    assert small.bits(model.state_dict()) == small.bits(before)
    ephemeral_query(ARMS["per-client-private"], BLOCK, before).load_into(model)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {EMBEDDING_TENSORS[0]}


# Shared keys.


@pytest.mark.parametrize("arm", SHARED)
def test_right_wrong_and_no_key_are_three_queries(arm: str) -> None:
    shared, protection = SubKey.generate(), ARMS[arm]
    trained = small.weights_of(small.model())
    queries = {key: shared_query(protection, key, shared, BLOCK, trained) for key in KEYS}
    images = {key: query.encrypt(IMAGE) for key, query in queries.items()}
    assert protection.cipher is not None and protection.block_scope is not None
    expected = encrypt(
        IMAGE, shared, protection.cipher, block_size=BLOCK, scope=protection.block_scope
    )
    np.testing.assert_array_equal(images["right"], expected)
    np.testing.assert_array_equal(images["none"], IMAGE)
    assert not np.array_equal(images["wrong"], images["right"])
    assert not np.array_equal(images["wrong"], IMAGE)
    np.testing.assert_array_equal(queries["wrong"].encrypt(IMAGE), images["wrong"])
    embeddings = [query.embedding for query in queries.values()]
    if protection.encrypted == "queries":  # one deployed model, whoever asks it
        assert len({small.bits(embedding) for embedding in embeddings}) == 1
        assert small.bits(embeddings[0]) != small.bits({n: trained[n] for n in EMBEDDING_TENSORS})
    else:
        assert embeddings == [None, None, None]


def test_conventional_1_is_plain_with_the_right_key_and_collapses_without(
    segmenter: SETR, samples: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    images, protection = np.stack([image for image, _ in samples]), ARMS["conventional-1"]
    plain, shared = logits(segmenter, images), SubKey.from_bytes(bytes(range(32)))
    trained = small.weights_of(segmenter)
    scores = {}
    for key in KEYS:
        query = shared_query(protection, key, shared, BLOCK, trained)
        answer = answered(segmenter, query, images)
        if key == "right":
            torch.testing.assert_close(answer, plain, atol=1e-4, rtol=1e-4)
            assert (answer.argmax(1) != plain.argmax(1)).float().mean() < 1e-3
        query.load_into(segmenter)
        queries = [(query.encrypt(image), labels) for image, labels in samples]
        scores[key] = score(evaluate(segmenter, queries, small.NUM_CLASSES)[0]).mIoU
        segmenter.load_state_dict(trained)
    assert scores["right"] > 25
    assert max(scores["wrong"], scores["none"]) < 0.6 * scores["right"]


def test_a_query_shows_nothing_of_its_embedding() -> None:
    key = SubKey.from_bytes(bytes(range(100, 132)))
    query = Query(lambda: key, ARMS["plain"], BLOCK, {"patch": torch.full((2, 3), 7.25)})
    text = repr(query)
    assert "7.25" not in text and "patch" not in text and "lambda" not in text


def test_a_shared_key_is_read_where_the_vault_put_it(tmp_path: Path) -> None:
    arm = ARMS["conventional-2"]
    expected = ensure_shared_subkey(tmp_path, arm)
    master = tmp_path / ".shared" / "master.key"
    assert load_shared_subkey(master, arm) == expected
    copy = tmp_path / "licence"
    shutil.copytree(master.parent, copy)
    assert load_shared_subkey(copy / "master.key", arm) == expected
    published = ARMS["domain-adaptation"]
    assert (
        ensure_shared_subkey(tmp_path, published)
        == load_shared_subkey(master, published)
        != expected
    )
    salt = copy / "manifests" / "salt.json"
    for damaged in (json.dumps({"client": "00"}), json.dumps({}), "[]", "{", None):
        salt.unlink() if damaged is None else salt.write_text(damaged)
        with pytest.raises(InputError) as caught:
            load_shared_subkey(copy / "master.key", arm)
        assert "salt" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list(copy.rglob("*.json")) or damaged is not None, "no salt is ever made anew"
    with pytest.raises(InputError, match="cannot be read"):
        load_shared_subkey(tmp_path / "nothing.key", arm)
    assert not (tmp_path / "nothing.key").exists()
    master.chmod(0o644)
    with pytest.raises(InputError, match="open to others"):
        load_shared_subkey(master, arm)
