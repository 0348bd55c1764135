"""Search of a run's folder for key material of its owners, which is taken from their vaults.

The needles are master keys, the permutation of a key that serves many images, and every version of
a private embedding; the haystacks all files of the run and their contents. It is not an attack: it
is a check of the audit for what no adversary may ever find.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import load_file

from clients.vault.keys.keyring import is_record_name
from clients.vault.keys.record import CLIENT, read_record
from clients.vault.layout import KEY_FILE, MARK, PRIVATE, record_files
from fl_ppseg.audit.containers import artefacts
from fl_ppseg.audit.key_search import (
    needles_of_embedding,
    needles_of_key,
    needles_of_permutation,
    search,
)
from fl_ppseg.config.run_layout import AUDIT
from fl_ppseg.crypto.adaptation import linear_form
from fl_ppseg.crypto.keys import ClientKey
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError


class Searched(NamedTuple):
    """A search and its result."""

    num_keys: int
    """Master keys that were searched for."""
    num_artefacts: int
    """Files, and members of files, that were searched."""
    found: tuple[str, ...]
    """Names of those that hold key material."""

    def __str__(self) -> str:
        if self.found:
            more = f" and {len(self.found) - 3} more" if len(self.found) > 3 else ""
            return f"KEY MATERIAL FOUND in {', '.join(self.found[:3])}{more}"
        if not self.num_keys:
            return "the vaults keep no key: every key of the run's arms was dropped after use"
        return (
            f"no key material of {self.num_keys} vaults in {self.num_artefacts:,} files of the run "
            "and what is inside them"
        )


def keys_of(vault_dir: Path) -> list[Path]:
    """The files of the master keys in a folder of vaults; arms with ephemeral keys have none.

    Raises:
        InputError: No vault was found.
    """
    keys = sorted(vault_dir.glob(f"*/{KEY_FILE}"))
    if not keys and not any(vault_dir.glob(f"*/{MARK}")):
        raise InputError(f"{vault_dir}: no vault found; give the run's --vault-dir")
    return keys


def search_run(run: Path, vault_dir: Path, block_size: int) -> Searched:
    """Search a run's folder for the keys of its owners' vaults.

    Args:
        run: The run folder.
        vault_dir: Folder of the vaults.
        block_size: Side of a cipher block in pixels.

    Raises:
        InputError: A vault is missing or cannot be read, or another version of a cipher encrypted
            what is in it.
    """
    keys = keys_of(vault_dir)
    needles = {needle for key in keys for needle in _needles(key.parent, block_size)}
    haystacks = [
        (name, content)
        for name, content in artefacts(run)
        if not name.startswith((f"{AUDIT}/", f"{AUDIT}\\"))
    ]
    found = search(haystacks, needles)
    return Searched(len(keys), len(haystacks), tuple(sorted(found)))


def _needles(vault: Path, block_size: int) -> Iterator[bytes]:
    """All secrets of a vault: its key, the permutation of that key, private embeddings."""
    file = vault / KEY_FILE
    key = ClientKey.load(file)
    yield from needles_of_key(bytes.fromhex(file.read_text("ascii").splitlines()[1]))
    records = (path for path in record_files(vault) if is_record_name(path.stem))
    for path in records:  # what all owners share has no record, and is not the secret of one owner
        yield from _of_record(path, key, block_size)
    for path in sorted((vault / PRIVATE).glob("**/*.safetensors")):
        weight = load_file(path)[EMBEDDING_TENSORS[0]]  # the bias is the public one
        yield from needles_of_embedding(weight.reshape(len(weight), -1))


def _of_record(path: Path, key: ClientKey, block_size: int) -> Iterator[bytes]:
    """The permutation of a key that serves many images, if the cipher has one."""
    record = read_record(path)
    if CLIENT not in record.salts or record.block_scope != "common":
        return
    subkey = record.subkey(key, "train", "", 0)  # the client's own: of any view
    try:
        form = linear_form(record.cipher, subkey, block_size)
    except InputError:  # a cipher that does more than move values has no permutation to leak
        return
    yield from needles_of_permutation(form.index)
