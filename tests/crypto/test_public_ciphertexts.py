"""Public scenes under public keys: a new one for each view that is read, and known to no other."""

import ast
from pathlib import Path

import grimp
import numpy as np
import pytest

import fl_ppseg
from clients.vault.assignment import Assignment
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.crypto.ciphers.encryption import decrypt
from fl_ppseg.crypto.keys import ClientKey, SubKey
from fl_ppseg.crypto.public_ciphertexts import EncryptedScenes, public_keys
from fl_ppseg.data.shard import Shard, open_shard

ROOT = Path(fl_ppseg.__file__).parents[1]
BLOCK = 8


@pytest.fixture(scope="module")
def plain(job: Assignment) -> Shard:
    return open_shard([prepare_shards(job)["plain"].shard])


def encrypted(plain: Shard, seed: int = 3) -> EncryptedScenes:
    return EncryptedScenes(plain.parts, "shuffle", BLOCK, seed)


def test_each_reading_is_under_the_next_key_of_the_seed(plain: Shard) -> None:
    shard, indices, views = encrypted(plain), [1, 0, 1], [0, 1, 0]
    images, labels = plain.batch(indices, views)
    keys = public_keys(3)
    for _ in range(2):
        ciphertexts, same = shard.batch(indices, views)
        assert np.array_equal(same, labels)
        for one, image in zip(ciphertexts, images, strict=True):
            key = next(keys)
            found = decrypt(one, key, "shuffle", block_size=BLOCK, scope="common")
            assert np.array_equal(found, image) and not np.array_equal(one, image)
    for (one, same), (image, labels) in zip(shard.heldout(), plain.heldout(), strict=True):
        found = decrypt(one, next(keys), "shuffle", block_size=BLOCK, scope="common")
        assert np.array_equal(found, image) and np.array_equal(same, labels)


def test_the_same_view_is_never_read_twice_alike(plain: Shard) -> None:
    shard = encrypted(plain)
    read = [shard.batch([0], [0])[0].tobytes() for _ in range(20)]
    assert len(set(read)) == 20


def test_a_seed_repeats_and_another_does_not(plain: Shard) -> None:
    first, again, other = (encrypted(plain, seed).batch([0, 1], [0, 0])[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_other_things_of_a_shard_stay(plain: Shard) -> None:
    shard = encrypted(plain)
    assert (len(shard), shard.num_views, shard.image_size, shard.num_heldout) == (
        len(plain), plain.num_views, plain.image_size, plain.num_heldout,
    )  # fmt: skip


def test_no_other_module_knows_these_keys_or_makes_any_of_given_bytes() -> None:
    """Keys come from the operating system; from a seed come the model creator's alone."""
    packages = ("fl_ppseg", "clients", "strategies")
    graph = grimp.build_graph(*packages, cache_dir=None)
    assert graph.find_modules_that_directly_import("fl_ppseg.crypto.public_ciphertexts") == {
        "fl_ppseg.pretrain"
    }
    assert graph.find_modules_that_directly_import("fl_ppseg.pretrain") == {"fl_ppseg.__main__"}
    makers = {"from_bytes", *(kind.__name__ for kind in (SubKey, ClientKey))}
    found = set()
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in makers:
                    found.add((path.relative_to(ROOT).as_posix(), ast.unparse(node.func)))
    keyed = {(path, name) for path, name in found if not name.startswith("int.")}
    assert keyed == {
        ("fl_ppseg/crypto/keys.py", "SubKey"),  # HKDF of an owner's key
        ("fl_ppseg/crypto/public_ciphertexts.py", "SubKey.from_bytes"),
    }
