"""The audit's look for an owner's keys in what a run left."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from clients.vault.keys.keyring import Vault
from clients.vault.layout import MARK
from fl_ppseg.audit.vault_search import search_run
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

BLOCK = 8


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """The folder of one owner's vault, with a key and a private embedding."""
    own = Vault(tmp_path / "vaults" / "aachen")
    assert own.ensure_key().fingerprint
    private = own.folder / "private" / "digest"
    private.mkdir(parents=True)
    weight = np.random.default_rng(0).normal(size=(5, 3, BLOCK, BLOCK)).astype(np.float32)
    bias = np.zeros(5, np.float32)
    tensors = dict(zip(EMBEDDING_TENSORS, (weight, bias), strict=True))
    save_file(tensors, private / "round_0000.safetensors")
    return tmp_path / "vaults"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").write_text("round 1 of 2\n" * 50, "utf-8")
    return folder


def test_a_clean_run_is_clean(run: Path, vault: Path) -> None:
    found = search_run(run, vault, BLOCK)
    assert found.num_keys == 1 and found.num_artefacts >= 1 and found.found == ()
    assert str(found).startswith("no key material of 1 vaults in ")


def test_a_key_in_a_log_is_found(run: Path, vault: Path) -> None:
    secret = (vault / "aachen" / "master.key").read_text("ascii").splitlines()[1]
    (run / "log.txt").write_text(f"debug: using {secret}\n", "utf-8")
    found = search_run(run, vault, BLOCK)
    assert found.found == ("log.txt",)
    assert str(found) == "KEY MATERIAL FOUND in log.txt"


def test_a_private_embedding_in_a_checkpoint_is_found(run: Path, vault: Path) -> None:
    (file,) = vault.glob("*/private/*/*.safetensors")
    (run / "checkpoint.safetensors").write_bytes(file.read_bytes())
    assert search_run(run, vault, BLOCK).found == ("checkpoint.safetensors",)


def test_vaults_that_keep_no_key_have_none_to_look_for(run: Path, tmp_path: Path) -> None:
    """Those of a simulation whose arms drop every key after use."""
    (tmp_path / "vaults" / "aachen").mkdir(parents=True)
    (tmp_path / "vaults" / "aachen" / MARK).write_text("{}")
    found = search_run(run, tmp_path / "vaults", BLOCK)
    assert (found.num_keys, found.found) == (0, ())
    assert str(found).startswith("the vaults keep no key")


def test_the_audits_own_folder_is_left_out(run: Path, vault: Path) -> None:
    """It holds pictures of demonstration keys; it is searched when it is written, in its tests."""
    (run / "audit").mkdir()
    secret = (vault / "aachen" / "master.key").read_bytes()
    (run / "audit" / "note.txt").write_bytes(secret)
    assert search_run(run, vault, BLOCK).found == ()


def test_without_a_vault_there_is_nothing_to_look_for(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no vault found"):
        search_run(run, tmp_path / "empty", BLOCK)
