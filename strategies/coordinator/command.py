"""`python -m strategies.coordinator VERB`: the options of each verb, and what it prints.

Only the verbs that talk to the SuperLink import Flower, so that help is printed at once.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from fl_ppseg.config.loading import load_config, validate
from fl_ppseg.deployment.certificates import Pair, expiry
from fl_ppseg.deployment.clients import load_clients
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.templates import KINDS, write_templates
from fl_ppseg.federation.run_folder import RunFolder, is_finished
from fl_ppseg.progress.plug_ins import add_observer, load_plug_ins
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.installation import checkout
from fl_ppseg.system.verbs import Verb, dispatch
from strategies.coordinator.cohort import keep_cohort
from strategies.coordinator.home import Home, Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Raises:
        InputError: For options, certificates or folders that do not fit.
        RunError: If a run or the SuperLink failed.
    """
    verbs = {
        "init": Verb("make the coordinator's folder and certificates", _init),
        "enrol": Verb("enrol a client's node by its public key", _enrol),
        "revoke": Verb("revoke a client's key; its node is refused at once", _revoke),
        "start": Verb("run SuperLink and proxy until Ctrl-C", _start),
        "run": Verb("train a run folder with the enrolled nodes, or resume it", _run),
        "stop": Verb("stop the current run", _stop),
        "status": Verb("show the connected nodes and the state of the runs", _status),
        "bundle": Verb("print the hash of the app bundle that nodes run", _bundle),
        "template": Verb("write systemd units or a compose file", _template),
    }
    about = "Coordinate a federation of clients whose nodes run on separate machines."
    return dispatch("strategies.coordinator", about, verbs, argv)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _home(parser: Parser) -> None:
    parser.add_argument(
        "--home", type=Path, required=True, metavar="DIR", help="the coordinator's folder"
    )


def _app(parser: Parser) -> None:
    parser.add_argument(
        "--app", type=Path, default=checkout(), metavar="DIR", help="another checkout of fl_ppseg"
    )


def _init(parser: Parser, argv: Sequence[str]) -> int:
    add = parser.add_argument
    _home(parser)
    add("--host", action="append", default=[], metavar="NAME", help="host name for nodes")
    add("--ip", action="append", default=[], metavar="ADDRESS", help="address for nodes")
    add("--port", type=int, default=9443, metavar="N", help="port that nodes connect to (9443)")
    add("--link-port", type=int, default=9092, metavar="N", help="loopback port (9092)")
    add("--bind", default="", metavar="ADDRESS", help="address to listen on (all)")
    add("--days", type=int, default=365, metavar="N", help="validity of new certificates (365)")
    add("--certificate", type=Path, metavar="PEM", help="use this certificate with its chain")
    add("--key", type=Path, metavar="PEM", help="the key of --certificate")
    add("--ca", type=Path, metavar="PEM", help="the authority of --certificate, for the nodes")
    add("--renew", action="store_true", help="make new certificates in an existing folder")
    add("--insecure-for-tests", action="store_true", help="no TLS, enrolment, proxy; loopback only")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings_file.exists() and not options.renew:
        raise InputError(f"{home.folder}: exists already; add --renew for new certificates")
    settings = _settings(home, options)
    home.create(settings, options.days, _given(options))
    if settings.insecure:
        _say("WARNING: insecure: anyone who can reach this port can run code on every node")
        return 0
    until = expiry(home.server.certificate)
    print(f"certificate for {', '.join(settings.hosts)}, valid until {until:%Y-%m-%d}")
    print(f"copy {home.authority.certificate} to every node")
    return 0


def _settings(home: Home, options: object) -> Settings:
    given = vars(options)
    if given["renew"]:
        return home.settings
    hosts = (*given["host"], *given["ip"])
    if not hosts:
        raise InputError("--host or --ip is required: the name or address that nodes connect to")
    named = {name: given[name] for name in ("bind", "port", "link_port")}
    return validate(
        Settings, named | {"hosts": hosts, "insecure": given["insecure_for_tests"]}, "init"
    )


def _given(options: object) -> tuple[Pair, Path] | None:
    values = [vars(options)[name] for name in ("certificate", "key", "ca")]
    if not any(values):
        return None
    if not all(values):
        raise InputError("--certificate, --key and --ca must be given together")
    certificate, key, authority = values
    return Pair(certificate, key), authority


def _enrol(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    parser.add_argument("client", metavar="CLIENT", help="client of the node")
    parser.add_argument("key", type=Path, metavar="NODE.PUB", help="the node's public key")
    parser.add_argument("--replace", action="store_true", help="replace this client's key")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings.insecure:
        raise InputError(f"{home.folder}: made with --insecure-for-tests, which has no enrolment")
    from strategies.coordinator.enrolment import enrol  # loads Flower

    print(f"{options.client} {enrol(home, options.client, options.key, replace=options.replace)}")
    if not _update_superlink(home):
        _say("no SuperLink is running; the node is admitted from the next start on")
    return 0


def _revoke(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    parser.add_argument("client", metavar="CLIENT", help="client whose key is revoked")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings.insecure:
        raise InputError(f"{home.folder}: made with --insecure-for-tests, which has no enrolment")
    from strategies.coordinator.enrolment import revoke  # loads Flower

    print(f"{options.client} {revoke(home, options.client)} revoked")
    if _update_superlink(home):
        _say("its next request is refused; a run that needs it waits, or continues with a quorum")
    else:
        _say("no SuperLink answers; if one is running, restart it")
    return 0


def _update_superlink(home: Home) -> bool:
    """Register the enrolled nodes at a running SuperLink; False if none answers."""
    from fl_ppseg.flower.superlink import NoAnswerError
    from strategies.coordinator.enrolment import register_enrolled
    from strategies.coordinator.link import connect

    try:
        with connect(home) as link:
            register_enrolled(home, link)
    except NoAnswerError:
        return False
    return True


def _start(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    options = parser.parse_args(argv)
    from strategies.coordinator.serving import serve  # loads Flower

    try:
        serve(Home(options.home), _say)
    except KeyboardInterrupt:
        _say("stopped")
    return 0


def _run(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="folder of fl_ppseg.initialise")
    _app(parser)
    add(
        "--cohort",
        type=Path,
        metavar="FILE",
        help="cohort keys of the training clients, to check their advertisements with",
    )
    add("--quiet", action="store_true", help="print the final table only")
    add_observer(parser)
    options = parser.parse_args(argv)
    plug_ins = load_plug_ins(options.observer)
    home, run = Home(options.home), RunFolder(options.run.absolute())
    clients = load_clients(run.path)  # raises for a run folder that is not of a deployed run
    config = load_config(run.config)
    if not is_finished(config, run):
        keep_cohort(run, config.federation, clients.train, options.cohort, _say)
        from strategies.coordinator.submission import follow_run  # loads Flower

        try:
            follow_run(home, run, options.app, quiet=options.quiet, plug_ins=plug_ins, say=_say)
        except KeyboardInterrupt:
            raise RunError(
                "stopped; finished rounds are kept; repeat the command to resume after them"
            ) from None
    from strategies.coordinator.conclusion import write_report  # loads the plotting

    write_report(config, run)
    return 0


def _stop(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    options = parser.parse_args(argv)
    from strategies.coordinator.link import connect  # loads Flower

    with connect(Home(options.home)) as link:
        active = [state for state in link.runs() if not state.is_finished]
        for state in active:
            link.stop(state.run_id)
            print(f"stopped the run of {state.run_dir}")
    if not active:
        print("no run is active")
    return 0


def _status(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    options = parser.parse_args(argv)
    home = Home(options.home)
    if not home.settings.insecure:
        print(f"certificate valid until {expiry(home.server.certificate):%Y-%m-%d}")
    for client, path in home.revoked():
        print(f"{client}: revoked ({fingerprint(path)})")
    from strategies.coordinator.link import connect  # loads Flower

    with connect(home) as link:
        online = {node.client for node in link.nodes() if node.is_online}
        for client in home.enrolled():
            print(f"{client}: {'connected' if client in online else 'not connected'}")
        for state in link.runs():
            outcome = " ".join(filter(None, (state.outcome or state.status, state.details)))
            print(f"run of {state.run_dir}: {outcome}")
    return 0


def _bundle(parser: Parser, argv: Sequence[str]) -> int:
    _app(parser)
    options = parser.parse_args(argv)
    from fl_ppseg.flower.superlink import read_bundle
    from strategies.coordinator.submission import check_app  # loads Flower

    print(hashlib.sha256(read_bundle(check_app(options.app))).hexdigest())
    return 0


def _template(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    add = parser.add_argument
    add("--runs", type=Path, required=True, metavar="DIR", help="folder of the run folders")
    add("--user", default="fl-coordinator", metavar="USER", help="user to run as (fl-coordinator)")
    add(
        "--out",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder to write to (current folder)",
    )
    add("--max-memory", type=int, default=16, metavar="GIB", help="memory limit in GiB (16)")
    add("kind", choices=KINDS, help="kind of template")
    options = parser.parse_args(argv)
    home = Home(options.home)
    owner = home.folder.stat()
    values = {
        "home": home.folder,
        "port": home.settings.port,
        "link_port": home.settings.link_port,
        "runs": options.runs.absolute(),
        "user": options.user,
        "uid": owner.st_uid,
        "gid": owner.st_gid,
        "memory_max": f"{options.max_memory}G",
    }
    for path in write_templates("coordinator", options.kind, options.out, values):
        print(path)
    return 0
