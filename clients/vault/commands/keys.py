"""Verbs for keys: new, cohort, backup, restore, rotate, retire."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from clients.vault.commands.options import add_owner
from clients.vault.consent.floor import make_floor
from clients.vault.keys.backup import back_up, open_backup, restore
from clients.vault.keys.cohort import ensure_cohort_key, public_cohort_key
from clients.vault.keys.keyring import Vault, open_vault
from clients.vault.keys.passphrases import Passphrase, ask_passphrase, read_passphrase
from clients.vault.keys.retirement import DoomedKey, destroy, find_damage, keys_to_destroy
from clients.vault.keys.rotation import is_rotating, rotate
from clients.vault.layout import FLOOR, KEY_FILE
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError


def _new(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser, deployed=True)
    options = parser.parse_args(argv)
    vault = Vault(options.vault / options.client)
    with vault.lock():
        if vault.has_key:
            raise InputError(
                f"{vault.key_path}: exists and is never overwritten; `rotate` replaces it safely"
            )
        print(f"{vault.key_path}: new master key, fingerprint {vault.ensure_key().fingerprint}")
        make_floor(vault.folder)
    print(
        f"{vault.folder / FLOOR}: your floor, the least protection you accept; review and edit it"
    )
    print("back up the key: if it is lost, nobody can decrypt the images or recreate it")
    return 0


def _cohort(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser, deployed=True)
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.client)
    with vault.lock():
        ensure_cohort_key(vault.folder)
    print(f"{options.client}: {public_cohort_key(vault.folder)}")
    return 0


def _backup(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="a new file")
    _add_passphrase(parser)
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.client)
    passphrase = _passphrase(options.passphrase_file, seals=True)
    with vault.lock():
        names = back_up(vault, options.client, options.to, passphrase.text)
        flaws = find_damage(vault)
    print(f"{options.to}: {len(names)} files of {vault.folder}, sealed with the passphrase")
    for flaw in flaws:
        print(f"WARNING: backed up unchanged: {flaw}", file=sys.stderr)
    return 0


def _restore(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="the backup"
    )
    _add_passphrase(parser)
    options = parser.parse_args(argv)
    folder = options.vault / options.client
    if os.path.lexists(folder / KEY_FILE):
        raise InputError(
            f"{folder}: already holds a master key, and keys are never overwritten; choose another "
            "--vault"
        )
    passphrase = _passphrase(options.passphrase_file, seals=False)
    backup = open_backup(options.source, options.client, passphrase)
    vault = Vault(folder)
    with vault.lock():
        restore(vault, backup)
        key = vault.ensure_key()
    print(f"{folder}: {len(backup.files)} files restored, master key {key.fingerprint}")
    if backup.has_earlier_reading:
        print(
            "this backup was sealed by an earlier version, which read the passphrase differently; "
            "make a new backup, which opens with the passphrase as you type it",
            file=sys.stderr,
        )
    return 0


def _rotate(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    options = parser.parse_args(argv)
    vault = open_vault(options.vault, options.client)
    with vault.lock():
        old = vault.ensure_key().fingerprint
        key = rotate(vault)
    print(f"{vault.key_path}: new master key, fingerprint {key.fingerprint}; {old} is retired")
    print("run `encrypt` again to re-encrypt shards with derived keys, then back up the vault")
    return 0


def _retire(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument("--all", action="store_true", help="also destroy the master key")
    parser.add_argument(
        "--confirm", metavar="NAME", help="the client's name, to confirm destruction"
    )
    options = parser.parse_args(argv)
    folder = options.vault / options.client
    if not folder.is_dir():
        raise InputError(f"{folder}: no such vault; check --vault and --client")
    vault = Vault(folder)
    with vault.lock():
        found = keys_to_destroy(vault, all_keys=options.all)
        if not found:
            raise InputError(f"{folder}: no retired keys; add --all to destroy the master key too")
        if not options.all and is_rotating(vault):
            raise InputError(
                f"{folder}: a rotation was interrupted, and the current key is also among the "
                "retired ones; run `rotate` again to finish it, then `retire`"
            )
        if options.confirm != options.client:
            raise InputError(
                f"{_describe_loss(found)}; nobody can undo this; add --confirm {options.client} to "
                "go ahead"
            )
        for each in found:
            destroy(vault, each)
            _report_destroyed(each)
    print("backups and copies of the vault still hold these keys; destroy them too")
    print("a private embedding on a node reveals its key; `withdraw` removes it")
    return 0


def _report_destroyed(each: DoomedKey) -> None:
    about = ", finishing an earlier call" if each.is_partly_destroyed else ""
    about += ", which could not be read" if each.flaw else ""
    print(f"destroyed key {each.name}{about}")
    for name, record in each.records.items():
        images = "already damaged"
        if record is not None:
            images = f"{len(record.train)} training and {len(record.heldout)} held-out images"
        print(f"  can never be decrypted again: record {name}, {images}")


def _add_passphrase(parser: Parser) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="file with the passphrase in one line; if left out, it is asked for",
    )


def _describe_loss(found: list[DoomedKey]) -> str:
    number = sum(len(each.records) for each in found)
    return f"this destroys {len(found)} key(s), and {number} shard(s) can never be decrypted again"


def _passphrase(path: Path | None, *, seals: bool) -> Passphrase:
    """Read from a file that only its owner can read, or from the terminal; never an argument."""
    if path is None:
        return ask_passphrase(twice=seals)
    passphrase = read_passphrase(path, seals=seals)
    if passphrase.remark is not None:
        print(passphrase.remark, file=sys.stderr)
    return passphrase


VERBS = {
    "new": _new,
    "cohort": _cohort,
    "backup": _backup,
    "restore": _restore,
    "rotate": _rotate,
    "retire": _retire,
}
