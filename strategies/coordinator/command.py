"""`python -m strategies.coordinator VERB`: the options of each verb, and what it prints.

What loads Flower stands in the verbs that ask the SuperLink: help and options come at once.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from fl_ppseg.config.loading import load_config, validate
from fl_ppseg.deployment.certificates import Pair, expiry
from fl_ppseg.deployment.cities import load_cities
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.templates import KINDS, write_templates
from fl_ppseg.federation.run_folder import RunFolder, is_finished
from fl_ppseg.system.command_line import Parser
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.installation import checkout
from fl_ppseg.system.verbs import Verb, dispatch
from strategies.coordinator.home import Home, Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Raises:
        InputError: For options, certificates or folders that do not fit.
        RunError: If a run or the SuperLink failed.
    """
    verbs = {
        "init": Verb("make the coordinator's folder and certificates", _init),
        "enrol": Verb("admit a city's node by its public key", _enrol),
        "revoke": Verb("admit a city's node no longer, at once", _revoke),
        "start": Verb("run SuperLink and proxy until Ctrl-C", _start),
        "run": Verb("train a run folder with the enrolled nodes, or go on with it", _run),
        "stop": Verb("stop the run that is under way", _stop),
        "status": Verb("say who is connected and how the runs stand", _status),
        "bundle": Verb("print the hash of the app that nodes are asked to run", _bundle),
        "template": Verb("write systemd units or a compose file", _template),
    }
    about = "Coordinate a federation of cities whose nodes run on machines of their own."
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
    add("--host", action="append", default=[], metavar="NAME", help="name that nodes call")
    add("--ip", action="append", default=[], metavar="ADDRESS", help="address that nodes call")
    add("--port", type=int, default=9443, metavar="N", help="port that nodes call (9443)")
    add("--link-port", type=int, default=9092, metavar="N", help="loopback port (9092)")
    add("--bind", default="", metavar="ADDRESS", help="address to listen on (all)")
    add("--days", type=int, default=365, metavar="N", help="validity of new certificates (365)")
    add("--certificate", type=Path, metavar="PEM", help="use this certificate, its chain behind it")
    add("--key", type=Path, metavar="PEM", help="the key of --certificate")
    add("--ca", type=Path, metavar="PEM", help="the authority of --certificate, for the nodes")
    add("--renew", action="store_true", help="make new certificates in a folder that is there")
    add("--insecure-for-tests", action="store_true", help="no TLS, enrolment, proxy; loopback only")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings_file.exists() and not options.renew:
        raise InputError(f"{home.folder}: a coordinator lives here; add --renew for certificates")
    settings = _settings(home, options)
    home.create(settings, options.days, _given(options))
    if settings.insecure:
        _say("WARNING: insecure: whoever reaches this port can run code on every node")
        return 0
    until = expiry(home.server.certificate)
    print(f"certificate for {', '.join(settings.hosts)}, valid until {until:%Y-%m-%d}")
    print(f"give every node {home.authority.certificate}")
    return 0


def _settings(home: Home, options: object) -> Settings:
    given = vars(options)
    if given["renew"]:
        return home.settings
    hosts = (*given["host"], *given["ip"])
    if not hosts:
        raise InputError("--host or --ip: how do nodes call this machine?")
    named = {name: given[name] for name in ("bind", "port", "link_port")}
    return validate(
        Settings, named | {"hosts": hosts, "insecure": given["insecure_for_tests"]}, "init"
    )


def _given(options: object) -> tuple[Pair, Path] | None:
    values = [vars(options)[name] for name in ("certificate", "key", "ca")]
    if not any(values):
        return None
    if not all(values):
        raise InputError("--certificate, --key and --ca belong together; give all three")
    certificate, key, authority = values
    return Pair(certificate, key), authority


def _enrol(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    parser.add_argument("city", metavar="CITY", help="whose node it is")
    parser.add_argument("key", type=Path, metavar="NODE.PUB", help="the node's public key")
    parser.add_argument("--replace", action="store_true", help="forget another key of this city")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings.insecure:
        raise InputError(f"{home.folder}: insecure, so nobody is enrolled")
    from strategies.coordinator.enrolment import enrol  # loads Flower

    print(f"{options.city} {enrol(home, options.city, options.key, replace=options.replace)}")
    if not _tell_the_link(home):
        _say("admitted at the next start")
    return 0


def _revoke(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    parser.add_argument("city", metavar="CITY", help="whose node is admitted no longer")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if home.settings.insecure:
        raise InputError(f"{home.folder}: insecure, so nobody is enrolled")
    from strategies.coordinator.enrolment import revoke  # loads Flower

    print(f"{options.city} {revoke(home, options.city)} revoked")
    if _tell_the_link(home):
        _say("its next request is refused; a run that needs it waits, or goes on with a quorum")
    else:
        _say("no SuperLink answers; if one runs, start it again, else it is refused from its start")
    return 0


def _tell_the_link(home: Home) -> bool:
    """Bring a SuperLink that runs in line with who is enrolled; False: none answers."""
    from fl_ppseg.flower.superlink import NoAnswerError
    from strategies.coordinator.enrolment import bring_in_line
    from strategies.coordinator.link import connect

    try:
        with connect(home) as link:
            bring_in_line(home, link)
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
    add("--quiet", action="store_true", help="print the final table only")
    options = parser.parse_args(argv)
    home, run = Home(options.home), RunFolder(options.run.absolute())
    load_cities(run.path)  # a folder without is no run of several machines
    config = load_config(run.config)
    if not is_finished(config, run):
        from strategies.coordinator.submission import carry_out  # loads Flower

        try:
            carry_out(home, run, options.app, quiet=options.quiet, say=_say)
        except KeyboardInterrupt:
            raise RunError(
                "stopped; finished rounds are kept, and the same command goes on after them"
            ) from None
    from strategies.coordinator.conclusion import finish  # loads the plotting

    finish(config, run)
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
        print("no run is under way")
    return 0


def _status(parser: Parser, argv: Sequence[str]) -> int:
    _home(parser)
    options = parser.parse_args(argv)
    home = Home(options.home)
    if not home.settings.insecure:
        print(f"certificate valid until {expiry(home.server.certificate):%Y-%m-%d}")
    for city, path in home.revoked():
        print(f"{city}: revoked ({fingerprint(path)})")
    from strategies.coordinator.link import connect  # loads Flower

    with connect(home) as link:
        online = {node.city for node in link.nodes() if node.is_online}
        for city in home.enrolled():
            print(f"{city}: {'connected' if city in online else 'not connected'}")
        for state in link.runs():
            told = " ".join(filter(None, (state.outcome or state.status, state.details)))
            print(f"run of {state.run_dir}: {told}")
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
    add("--runs", type=Path, required=True, metavar="DIR", help="where run folders lie")
    add("--user", default="fl-coordinator", metavar="USER", help="who runs it (fl-coordinator)")
    add("--out", type=Path, default=Path(), metavar="DIR", help="where to write (here)")
    add("--max-memory", type=int, default=16, metavar="GIB", help="memory of all of it (16 GiB)")
    add("kind", choices=KINDS, help="what to write")
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
