"""Verbs for keys: new, backup, restore, rotate, retire."""

import getpass
import stat
from collections.abc import Sequence
from pathlib import Path

from clients.vault.backup import back_up, restore
from clients.vault.commands.options import add_owner
from clients.vault.floor import FLOOR, make_floor
from clients.vault.keyring import Vault, owners_vault
from clients.vault.rotation import Generation, destroy, generations, rotate
from fl_ppseg.command_line import Parser
from fl_ppseg.errors import InputError
from fl_ppseg.verbs import Verb


def _new(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    options = parser.parse_args(argv)
    vault = Vault(options.vault / options.city)
    with vault.lock():
        if vault.has_key:
            raise InputError(
                f"{vault.key_path}: exists and is never overwritten; `rotate` makes a new one"
            )
        print(f"{vault.key_path}: new master key, fingerprint {vault.key.fingerprint}")
        make_floor(vault.folder)
    print(f"{vault.folder / FLOOR}: your floor, below what no config goes; read it, and change it")
    print("back it up: whoever loses it cannot decrypt, and nobody else can make it again")
    return 0


def _backup(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="a new file")
    _add_passphrase(parser)
    options = parser.parse_args(argv)
    vault = owners_vault(options.vault, options.city)
    passphrase = _passphrase(options.passphrase_file, twice=True)
    with vault.lock():
        number = back_up(vault, options.city, options.to, passphrase)
    print(f"{options.to}: {number} files of {vault.folder}, sealed with the passphrase")
    return 0


def _restore(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="FILE", help="the backup"
    )
    _add_passphrase(parser)
    options = parser.parse_args(argv)
    folder = options.vault / options.city
    passphrase = _passphrase(options.passphrase_file, twice=False)
    number = restore(folder, options.city, options.source, passphrase)
    key = owners_vault(options.vault, options.city).key
    print(f"{folder}: {number} files restored, master key {key.fingerprint}")
    return 0


def _rotate(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    options = parser.parse_args(argv)
    vault = owners_vault(options.vault, options.city)
    with vault.lock():
        old = vault.key.fingerprint
        key = rotate(vault)
    print(f"{vault.key_path}: new master key, fingerprint {key.fingerprint}; {old} is retired")
    print("`encrypt` makes shards with derived keys anew; back the vault up again")
    return 0


def _retire(parser: Parser, argv: Sequence[str]) -> int:
    add_owner(parser)
    parser.add_argument("--all", action="store_true", help="the master key too")
    parser.add_argument("--confirm", metavar="NAME", help="the city's name: yes, destroy them")
    options = parser.parse_args(argv)
    folder = options.vault / options.city
    if not folder.is_dir():
        raise InputError(f"{folder}: no vault; check --vault and --city")
    vault = Vault(folder)
    with vault.lock():
        doomed = [g for g in generations(vault) if options.all or not g.is_current]
        if not doomed:
            raise InputError(f"{folder}: no retired key; --all destroys the master key too")
        if options.confirm != options.city:
            raise InputError(
                f"{_lost(doomed)} could never be decrypted again, and no key comes back; add "
                f"--confirm {options.city} if that is what you want"
            )
        for generation in doomed:
            destroy(generation)
            print(f"destroyed key {generation.fingerprint}")
            for name, record in generation.records.items():
                images = f"{len(record.train)} images and {len(record.heldout)} held out"
                print(f"  never to be decrypted again: record {name}, {images}")
    print("backups and copies of the vault still hold them; destroy these too")
    print("a private embedding on a node is as good as its key; `withdraw` removes it")
    return 0


def _add_passphrase(parser: Parser) -> None:
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="first line: the passphrase; without it, it is asked for",
    )


def _lost(doomed: list[Generation]) -> str:
    number = sum(len(generation.records) for generation in doomed)
    return f"{len(doomed)} key(s) would be destroyed, {number} shard(s)"


def _passphrase(path: Path | None, twice: bool) -> str:
    """From a file that is its owner's alone, or from the terminal; never from an argument."""
    if path is not None:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InputError(f"{path}: open to others; run chmod 600 on it")
        return (path.read_text("utf-8").splitlines() or [""])[0]
    try:
        given = getpass.getpass("Passphrase: ")
        if twice and getpass.getpass("Once more: ") != given:
            raise InputError("the two passphrases differ; begin again")
    except EOFError:
        raise InputError("no terminal to ask for a passphrase; give --passphrase-file") from None
    return given


VERBS = {
    "new": Verb("make a master key; one that is there stays", _new),
    "backup": Verb("seal all keys and salts in one file", _backup),
    "restore": Verb("bring a vault back from its backup", _restore),
    "rotate": Verb(
        "make a new master key; the old one goes on decrypting what it encrypted", _rotate
    ),
    "retire": Verb("destroy retired keys, or all, for ever", _retire),
}
