"""`python -m clients.node VERB`: the options of each verb, and what it prints."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from clients.node.home import APP, AppHome, Home, Settings
from clients.node.limits import Limits, add_limits
from clients.node.owners import check_owner
from clients.node.supernode import LOOPBACK, Start, address_of, serve
from clients.policy.node_policy import load_policy
from fl_ppseg.config.loading import validate
from fl_ppseg.data.shard import open_shard
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.templates import KINDS, write_templates
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.verbs import Verb, dispatch

SHA256 = re.compile(r"[0-9a-f]{64}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Raises:
        InputError: For options, certificates or folders that do not fit.
    """
    verbs = {
        "init": Verb("create the node's folder and key pair", _init),
        "start": Verb("run SuperNode and app until Ctrl-C", _start),
        "app": Verb("run only the app, beside `start --without-app`", _app),
        "template": Verb("write systemd units or a compose file", _template),
    }
    return dispatch("clients.node", "Run the training node of one client.", verbs, argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _init(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    add("--home", type=Path, required=True, metavar="DIR", help="the node's folder, new or empty")
    add("--client", "--city", required=True, metavar="NAME", help="the client that it acts for")
    add("--node-user", metavar="USER", help="user of the SuperNode, e.g. fl-node (needs root)")
    add("--app-user", metavar="USER", help="user of the app, e.g. fl-app (needs root)")
    add("--app-home", type=Path, metavar="DIR", help="folder of the app's user (HOME/app)")
    options = parser.parse_args(argv)
    home = Home(options.home)
    values = {
        "client": options.client,
        "app_home": (options.app_home or home.folder / APP).absolute(),
        "node_user": options.node_user,
        "app_user": options.app_user,
    }
    home.create(validate(Settings, values, "clients.node init"))
    print(f"{options.client} {fingerprint(home.public)}")
    print(f"send {home.public} to the coordinator, and confirm the line above by another channel")
    return 0


def _start_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--home", type=Path, required=True, metavar="DIR", help="the node's folder")
    add("--coordinator", required=True, metavar="HOST:PORT", help="address of the coordinator")
    add("--ca", type=Path, metavar="PEM", help="the coordinator's ca.crt (the system's CAs)")
    add("--policy", type=Path, required=True, metavar="FILE", help="policy.yaml of the node folder")
    add("--bundle-hash", metavar="SHA256", help="only answer requests of this app bundle")
    add("--port", type=int, default=9094, metavar="N", help="loopback port of the SuperNode (9094)")
    add_limits(parser)
    add("--without-app", action="store_true", help="do not start the app; run it separately")
    add("--insecure-for-tests", action="store_true", help="use no TLS and no key")


def _start(parser: Parser, argv: Sequence[str]) -> int:
    _start_options(parser)
    options = parser.parse_args(argv)
    address_of(options.coordinator)
    if options.insecure_for_tests:
        _say("WARNING: insecure: anybody on the network can read and change what is sent")
    start = Start(
        coordinator=options.coordinator,
        authority=None if options.ca is None else _existing(options.ca, "--ca"),
        policy=_policy(options),
        bundle_hash=_hash(options.bundle_hash),
        port=_port(options.port),
        with_app=not options.without_app,
        insecure=options.insecure_for_tests,
        limits=Limits.of(options),
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
    add("--bundle-hash", metavar="SHA256", help="only answer requests of this app bundle")
    add("--port", type=int, default=9094, metavar="N", help="loopback port of the SuperNode (9094)")
    add_limits(parser)
    options = parser.parse_args(argv)
    home, limits, pin = AppHome(options.home), Limits.of(options), _hash(options.bundle_hash)
    port, policy = _port(options.port), _existing(options.policy, "--policy")
    home.check(os.geteuid())
    if home.has_own_user:
        check_owner(policy, {os.geteuid()})
    _check_data(policy)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("node").setLevel(logging.INFO)
    from clients.accepted_weights import remove_accepted
    from clients.heldout_loss import remove_losses
    from clients.node.app import Node, answer_tasks  # loads PyTorch
    from clients.private_state import remove_trained
    from clients.residuals import remove_residuals

    if load_policy(policy).withdrawn is not None:
        remove_trained(home.state)  # even if no request ever comes again
        remove_accepted(home.state)
        remove_residuals(home.state)
        remove_losses(home.state)
    config = {"policy": str(policy), "state": str(home.state)}
    answer_tasks(Node(f"{LOOPBACK}:{port}", home.secret.read_bytes(), config, pin, limits))


def _template(parser: Parser, argv: Sequence[str]) -> int:
    _start_options(parser)
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="folder to write to (the current)"
    )
    parser.add_argument("kind", choices=KINDS, help="what to write")
    options = parser.parse_args(argv)
    home = Home(options.home)
    address_of(options.coordinator)
    if options.kind == "systemd" and home.settings.app_user is None:
        raise InputError(
            f"{home.folder}: systemd units need two users; create the node as root with init "
            "--node-user fl-node --app-user fl-app"
        )
    values = _paths(home, options) | _words(options) | _ids("", home.node)
    values |= _ids("app_", home.settings.app_home)
    for path in write_templates("node", options.kind, options.out, values):
        print(path)
    return 0


def _paths(home: Home, options: argparse.Namespace) -> dict[str, object]:
    settings, policy = home.settings, options.policy.absolute()
    return {
        "name": settings.client,
        "user": settings.node_user or "root",
        "app_user": settings.app_user or "root",
        "home": home.folder,
        "settings": home.settings_file,
        "public": home.public,
        "node_folder": home.node,
        "app_home": settings.app_home,
        "policy": policy,
        "data": policy.parent,
        "ca": options.ca.absolute() if options.ca else "/etc/ssl/certs",
    }


def _words(options: argparse.Namespace) -> dict[str, object]:
    trust = ["--ca", str(options.ca.absolute())] if options.ca else []
    trust += ["--insecure-for-tests"] if options.insecure_for_tests else []
    pin = ["--bundle-hash", options.bundle_hash] if _hash(options.bundle_hash) else []
    held = Limits.of(options)
    limits = held.options()
    return {
        "coordinator": options.coordinator,
        "port": _port(options.port),
        "options": [*trust, *pin],
        "pin": pin,
        "limits": limits,
        "options_and_limits": [*trust, *pin, *limits],
        "pin_and_limits": [*pin, *limits],
        "memory_max": f"{held.memory_with_margin()}G",
        "cpu_quota": "" if held.cpus is None else f"{100 * held.cpus}%",
        "cpus": held.cpus or 0,
    }


def _ids(prefix: str, folder: Path) -> dict[str, object]:
    found = folder.stat()
    return {f"{prefix}uid": found.st_uid, f"{prefix}gid": found.st_gid}


def _check_data(policy: Path) -> None:
    """Check before the first message that this user can read the shards.

    Raises:
        InputError: It cannot.
    """
    for arm in load_policy(policy).arms.values():
        for shards in arm.shards.values():
            open_shard(shards)


def _existing(path: Path, option: str) -> Path:
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file; check the path")
    return path.absolute()


def _policy(options: argparse.Namespace) -> Path:
    policy: Path = options.policy
    return policy.absolute() if options.without_app else _existing(policy, "--policy")


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise InputError(f"--port: expected 1 to 65535, got {number}")
    return number


def _hash(text: str | None) -> str | None:
    if text is not None and not SHA256.fullmatch(text):
        raise InputError(
            "--bundle-hash: expected 64 hex digits, as printed by python -m strategies.coordinator "
            "bundle"
        )
    return text
