"""Queries under keys that lie in vaults: a client's own, or one that all users share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from clients.trained_embedding import read_version
from clients.vault.keys.keyring import Vault, open_vault, read_salt, shared_salt
from clients.vault.keys.record import CLIENT, Record, read_record
from clients.vault.layout import record_file, record_files
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.crypto.keys import ClientKey, SubKey
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.query.client import Client
from fl_ppseg.query.ephemeral import Query, adapted
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

Key = Literal["right", "wrong", "none"]
"""The key of a query to a shared-key arm: the shared one, a new one, or none (a plain image)."""
KEYS: Final[tuple[Key, ...]] = get_args(Key)
LEAST_LIKENESS: Final = 0.4
"""Of an embedding and what it was trained from. Of two keys it is 0 with a deviation of 0.13 where
64 pixels are shuffled; an embedding that lost so much of its start learned everything anew."""


def shared_query(
    protection: ArmConfig,
    key: Key,
    shared: SubKey,
    block_size: int,
    trained: Mapping[str, Tensor],
) -> Query:
    """A query to a model whose users share one key.

    A model trained on plain images (`encrypted: queries`) has its embedding adapted to the shared
    key, whatever the key of the query; other models are used as trained.

    Args:
        protection: Of an arm with `key_mode: shared`.
        key: Of the query.
        shared: The key that all share.
        block_size: Side of a cipher block in pixels.
        trained: The model's weights as trained.

    Raises:
        InputError: No embedding can be adapted to the arm's cipher.
    """
    own = {"right": shared, "wrong": SubKey.generate(), "none": None}[key]
    return Query(
        lambda: own,
        protection,
        block_size,
        adapted(trained, shared, protection) if protection.encrypted == "queries" else None,
    )


def load_shared_subkey(path: Path, protection: ArmConfig) -> SubKey:
    """Load the key that all share in an arm, from the file of its master key.

    Args:
        path: `<vault>/.shared/master.key`, with its salts in the same folder.
        protection: Of the arm.

    Raises:
        InputError: The file or the salt is missing, damaged, or open to others.
    """
    master = ClientKey.load(path)
    salt = record_file(path.parent, shared_salt(protection))
    remedy = f"give the path of {path.name} in its vault, or copy its whole folder"
    return master.client_subkey(read_salt(salt, remedy))


def shared_client(model: Segmenter, path: str | Path) -> Client:
    """Who asks a model whose users share one key.

    Args:
        model: Of an arm with a shared key.
        path: The file of its master key, as for :func:`load_shared_subkey`.

    Raises:
        InputError: The model's users share no key, or the key cannot be read.
    """
    if model.spec.key != "shared":
        raise InputError(f"{model.name}: its users share no key; leave the key out")
    return Client(model, load_shared_subkey(Path(path), model.about.protection))


def vault_client(
    model: Segmenter, vault_dir: str | Path, name: str, embedding: str | Path | None = None
) -> Client:
    """A client who asks under the key that encrypted its own images, taken from its vault.

    Args:
        model: Of an arm where each client has one key.
        vault_dir: The folder of vaults.
        name: The client's, which its vault has too.
        embedding: Of an arm with a private embedding that its node trains: the state folder of the
            node's app, or a version in it or copied from it (`round_<nnnn>.safetensors`). By
            default the model's embedding is adapted to the key, as it was before training.

    Raises:
        InputError: The arm's clients have no key of their own, there is no such vault, nothing was
            encrypted there as the arm encrypts, or the embedding is not one of this model under a
            key of this vault.
    """
    spec = model.spec
    if spec.key != "per-client":
        raise InputError(
            f"{model.name}: its queries take no key of a vault ({spec.key}); leave the vault out"
        )
    if embedding is not None and not spec.adapts:
        raise InputError(f"{model.name}: none of its embeddings is private; leave it out")
    vault = open_vault(Path(vault_dir), name)
    fits = [each for each in _records(vault) if (each.cipher, each.block_scope) == _how(model)]
    if not fits:
        raise InputError(
            f"{vault.folder}: nothing was encrypted with {spec.cipher} under a key of this client; "
            "leave the vault out, and an ephemeral key is used"
        )
    keys = [each.subkey(vault.ensure_key(), "train", "", 0) for each in fits]
    if embedding is None:
        return Client(model, keys[0])
    return _with_trained(model, keys, Path(embedding))


def _with_trained(model: Segmenter, keys: Sequence[SubKey], place: Path) -> Client:
    """A client with an embedding that its node trained, under the key that it was trained for."""
    public, about = model.network.state_dict(), model.about
    like = {name: public[name].cpu().numpy() for name in EMBEDDING_TENSORS}
    path, tensors = read_version(place, about.facts.round, like)
    trained = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    if about.protection.private_start == "random":
        return Client(model, keys[0], trained)
    found = [_likeness(trained, adapted(public, key, about.protection)) for key in keys]
    if max(found) < LEAST_LIKENESS:
        raise InputError(
            f"{path}: was not trained from the embedding of {model.name} under a key of this "
            "vault; give the one of this client, arm and seed"
        )
    return Client(model, keys[found.index(max(found))], trained)


def _likeness(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Cosine of two embeddings' weights, without what filters have whatever the order of pixels."""
    one, other = (
        (each[name] - each[name].mean(dim=(2, 3), keepdim=True)).cpu().flatten().double()
        for name in EMBEDDING_TENSORS[:1]
        for each in (first, second)
    )
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def _how(model: Segmenter) -> tuple[str | None, str | None]:
    return model.spec.cipher, model.spec.scope


def _records(vault: Vault) -> list[Record]:
    """Of shards under one key of the client, the newest first."""
    files = sorted(record_files(vault.folder), key=lambda path: -path.stat().st_mtime_ns)
    return [record for record in map(read_record, files) if CLIENT in record.salts]
