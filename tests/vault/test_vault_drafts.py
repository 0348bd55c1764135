"""Drafts of shards in the vault: what is left of them when nothing goes on with them any more."""

from pathlib import Path

from clients.vault.keys.keyring import Vault
from clients.vault.layout import DRAFTS
from clients.vault.shards.drafts import abandon_all


def test_an_empty_folder_of_drafts_is_no_rest_of_a_killed_command(tmp_path: Path) -> None:
    """A command that was killed between its last draft and their folder."""
    vault = Vault(tmp_path / "aachen")
    (vault.folder / DRAFTS).mkdir(mode=0o700)
    abandon_all(vault)
    assert not (vault.folder / DRAFTS).exists()
    abandon_all(vault)
