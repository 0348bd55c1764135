"""`python -m clients.node VERB`: the options of each verb, and what it prints."""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clients.node.home import AppHome, Home, Settings
from clients.node.supernode import LOOPBACK, Start, address_of, serve
from clients.policy import load_policy
from fl_ppseg.command_line import Parser
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.templates import KINDS, write_templates
from fl_ppseg.errors import InputError
from fl_ppseg.shard import open_shard
from fl_ppseg.verbs import Verb, dispatch

SHA256 = re.compile(r"[0-9a-f]{64}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Raises:
        InputError: For options, certificates or folders that do not fit.
    """
    verbs = {
        "init": Verb("make the node's folder and key pair", _init),
        "start": Verb("run SuperNode and app until Ctrl-C", _start),
        "app": Verb("run the app alone, where start runs without it", _app),
        "template": Verb("write systemd units or a compose file", _template),
    }
    return dispatch("clients.node", "Take part in a federation with one city.", verbs, argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _init(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    add("--home", type=Path, required=True, metavar="DIR", help="the node's folder")
    add("--city", required=True, metavar="NAME", help="whose node it is")
    add("--app-home", type=Path, metavar="DIR", help="folder of the app's user (HOME-app)")
    options = parser.parse_args(argv)
    home = Home(options.home)
    app = options.app_home or home.folder.with_name(f"{home.folder.name}-app")
    home.create(Settings(city=options.city, app_home=app.absolute()))
    print(f"{options.city} {fingerprint(home.public)}")
    print(f"send {home.public} to the coordinator, and read the line above to them")
    return 0


def _start_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--home", type=Path, required=True, metavar="DIR", help="the node's folder")
    add("--coordinator", required=True, metavar="HOST:PORT", help="who to call")
    add("--ca", type=Path, metavar="PEM", help="the coordinator's ca.crt (the system's)")
    add("--policy", type=Path, required=True, metavar="FILE", help="policy.yaml of the node folder")
    add("--app-user", metavar="USER", help="user of the app, other than the SuperNode's")
    add("--bundle-hash", metavar="SHA256", help="answer requests of this app only")
    add("--port", type=int, default=9094, metavar="N", help="loopback port (9094)")
    add("--without-app", action="store_true", help="the app runs elsewhere, with this loopback")
    add("--insecure-for-tests", action="store_true", help="no TLS and no key")


def _start(parser: Parser, argv: Sequence[str]) -> int:
    _start_options(parser)
    options = parser.parse_args(argv)
    address_of(options.coordinator)
    if options.insecure_for_tests:
        _say("WARNING: insecure: anybody on the way can read and change what is sent")
    if not options.without_app:
        _existing(options.policy, "--policy")
    start = Start(
        coordinator=options.coordinator,
        authority=None if options.ca is None else _existing(options.ca, "--ca"),
        policy=options.policy.absolute(),
        app_user=options.app_user,
        bundle_hash=_hash(options.bundle_hash),
        port=options.port,
        with_app=not options.without_app,
        insecure=options.insecure_for_tests,
    )
    try:
        serve(Home(options.home), start, _say)
    except KeyboardInterrupt:
        _say("stopped")
    return 0


def _app(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    add("--home", type=Path, required=True, metavar="DIR", help="the app's folder")
    add("--policy", type=Path, required=True, metavar="FILE", help="policy.yaml of the node folder")
    add("--bundle-hash", metavar="SHA256", help="answer requests of this app only")
    add("--port", type=int, default=9094, metavar="N", help="the SuperNode's (9094)")
    options = parser.parse_args(argv)
    _check_data(options.policy)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("node").setLevel(logging.INFO)
    from clients.node.app import work  # loads PyTorch

    secret = AppHome(options.home).secret.read_bytes()
    work(f"{LOOPBACK}:{options.port}", secret, _hash(options.bundle_hash))
    return 0


def _template(parser: Parser, argv: Sequence[str]) -> int:
    _start_options(parser)
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where (here)")
    parser.add_argument("kind", choices=KINDS, help="what to write")
    options = parser.parse_args(argv)
    home = Home(options.home)
    app_home, app_user = home.settings.app_home, options.app_user or "fl-app"
    trust = f"--ca {options.ca.absolute()}" if options.ca else ""
    pin = f"--bundle-hash {_hash(options.bundle_hash)}" if options.bundle_hash else ""
    values = {
        "city": home.settings.city,
        "home": home.folder,
        "app_home": app_home,
        "coordinator": options.coordinator,
        "policy": options.policy.absolute(),
        "data": options.policy.absolute().parent,
        "app_user": app_user,
        "ca": options.ca.absolute() if options.ca else "/etc/ssl/certs",
        "trust": trust,
        "pin": pin,
        "options": f"{trust} {pin}".strip(),
        **_ids("", home.folder),
        **_ids("app_", app_home),
    }
    for path in write_templates("node", options.kind, options.out, values):
        print(path)
    return 0


def _ids(prefix: str, folder: Path) -> dict[str, int]:
    found = folder.stat()
    return {f"{prefix}uid": found.st_uid, f"{prefix}gid": found.st_gid}


def _check_data(policy: Path) -> None:
    """Find out before the first message whether this user can read what it is to train on."""
    for arm in load_policy(policy).arms.values():
        for shards in arm.shards.values():
            open_shard(shards)


def _existing(path: Path, option: str) -> Path:
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file")
    return path.absolute()


def _hash(text: str | None) -> str | None:
    if text is not None and not SHA256.fullmatch(text):
        raise InputError(
            "--bundle-hash: wanted 64 hex digits, as python -m strategies.coordinator bundle prints"
        )
    return text
