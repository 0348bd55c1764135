"""`start`: runs the SuperNode and the app, each under its own user, until interrupted."""

import os
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clients.node.home import AppHome, Home, Settings, Users
from clients.node.limits import USUAL, Limits
from clients.node.owners import check_owner
from fl_ppseg.deployment.accounts import Account, as_user, drop_root_capabilities
from fl_ppseg.deployment.certificates import reason, trusting
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.services import Say, Service, Supervisor, environment
from fl_ppseg.flower.log_lines import CONNECTED, MESSAGE_LOST, NOT_ACTIVATED, REJECTED
from fl_ppseg.system.errors import InputError

LOOPBACK = "127.0.0.1"
SUPERNODE, APP = "the SuperNode", "the app"
TRY_SECONDS = 5.0
"""Pause between two attempts to reach the coordinator, and the timeout of one."""
REJOIN_SECONDS = 10.0
"""Pause between two attempts to join: Flower refuses a node for a minute after it was killed."""
ASTRAY = (
    "|".join((*MESSAGE_LOST, "a task ended with status")),
    "a message was lost; rejoining, so that the coordinator sends it again",
)
"""Log lines of a SuperNode that drops a message, and of the app when the process of a task dies, in
which case the SuperNode waits for the rest of its answer indefinitely. The coordinator does not
notice; a node that leaves and rejoins gets the message again."""


@dataclass(frozen=True)
class Start:
    """Options of `start`."""

    coordinator: str
    """host:port"""
    authority: Path | None
    """Certificates to trust; None: the system's."""
    policy: Path
    """The owner's policy; the encrypted shards are in the same folder."""
    bundle_hash: str | None
    """The only bundle whose requests this node answers; None: any of this version."""
    port: int
    """Loopback port of the SuperNode, for the app."""
    with_app: bool = True
    insecure: bool = False
    limits: Limits = USUAL
    """Limits of SuperNode and app."""


def serve(home: Home, start: Start, say: Say) -> None:
    """Run the node's programs until interrupted.

    Root switches each program to its user and drops every other right; it opens no file that one of
    the two users may write, and uses no network.

    Raises:
        InputError: The coordinator's certificate is not trusted, or users or files do not fit.
    """
    settings = home.settings
    alone = os.geteuid() != 0 and not start.with_app  # no other user is needed
    users = None if alone else settings.users
    home.check(settings, users, start.with_app)
    _check_starter(settings, users, start, say)
    node, app = users or (None, None)
    services = [_supernode(home, settings, start, node)]
    if start.with_app:
        services.append(_app(home, settings, start, app))
    as_user(node, lambda: wait_for_coordinator(start, say))
    if node is not None:
        drop_root_capabilities()
    with Supervisor(say) as supervisor:
        for service in services:
            supervisor.start(service)
        supervisor.watch()


def _check_starter(settings: Settings, users: Users | None, start: Start, say: Say) -> None:
    """Check that this user can start the programs, and who owns the policy.

    Raises:
        InputError: Only root or another user can, or a program's user owns the policy.
    """
    if users is None and settings.node_user is None:
        say(
            "WARNING: SuperNode and app run as the same user, so the app can read the node's key; "
            "to separate them, create the node as root with init --node-user fl-node --app-user "
            "fl-app"
        )
    if users is None:
        return
    if os.geteuid() != 0:
        raise InputError(
            f"only root can start programs as {users.node.name} and {users.app.name}; without "
            f"root, run start --without-app as {users.node.name}, and clients.node app as "
            f"{users.app.name} (clients.node template writes units that do so)"
        )
    if start.with_app:
        check_owner(start.policy, {users.node.uid, users.app.uid})
    say(
        f"root starts the SuperNode as {users.node.name} and the app as {users.app.name}, and does "
        "nothing else; the systemd units of clients.node template do not need root"
    )


def wait_for_coordinator(start: Start, say: Say) -> None:
    """Wait until the coordinator answers, and check its certificate.

    Raises:
        InputError: The address is malformed, or the certificate is not trusted.
    """
    host, port = address_of(start.coordinator)
    context = None if start.insecure else trusting(start.authority)
    reported = False
    while True:
        try:
            with socket.create_connection((host, port), TRY_SECONDS) as plain:
                if context is not None:
                    context.wrap_socket(plain, server_hostname=host).close()
            return
        except ssl.SSLCertVerificationError as error:
            raise InputError(
                f"the certificate of {start.coordinator} is not trusted ({reason(error)}); check "
                "--coordinator and --ca with the coordinator's operator"
            ) from None
        except OSError as error:
            if not reported:
                say(f"{start.coordinator} does not answer ({_cause(error)}); still trying")
            reported = True
            time.sleep(TRY_SECONDS)


def address_of(text: str) -> tuple[str, int]:
    """Split `host:port`.

    >>> address_of("coordinator.example:9443"), address_of("[::1]:9443")
    (('coordinator.example', 9443), ('::1', 9443))

    Raises:
        InputError: It is malformed.
    """
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(
            f"--coordinator {text!r}: expected HOST:PORT, e.g. coordinator.example:9443"
        )
    return host.strip("[]"), int(port)


def _supernode(home: Home, settings: Settings, start: Start, user: Account | None) -> Service:
    if start.insecure:
        trust = ["--insecure"]
    else:
        trust = ["--auth-supernode-private-key", str(home.key)]
        if start.authority is not None:
            trust += ["--root-certificates", str(start.authority)]
    pin = ["--bundle-hash", start.bundle_hash] if start.bundle_hash else []
    return Service(
        name=SUPERNODE,
        command=[
            *(sys.executable, "-P", "-m", "clients.node.flower_supernode"),
            *(*start.limits.options(), *pin, "--"),
            *("--superlink", start.coordinator),
            *trust,
            *("--host", LOOPBACK, "--port", str(start.port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(home.secret)),
        ],
        log=home.logs / "supernode.log",
        environment=environment(home.flower),
        folder=home.folder,
        account=user,
        restart_seconds=REJOIN_SECONDS,
        explain=lambda text: _explain(text, fingerprint(home.public)),
        news=(CONNECTED, f"connected to {start.coordinator} as {settings.client}"),
        astray=ASTRAY,
        also_read=(APP,),
    )


def _app(home: Home, settings: Settings, start: Start, user: Account | None) -> Service:
    app = AppHome(settings.app_home)
    pin = ["--bundle-hash", start.bundle_hash] if start.bundle_hash else []
    return Service(
        name=APP,
        command=[
            *(sys.executable, "-P", "-m", "clients.node", "app", "--home", str(app.folder)),
            *("--port", str(start.port), "--policy", str(start.policy), *pin),
            *start.limits.options(),
        ],
        log=home.logs / "app.log",
        environment=environment(app.flower),
        folder=home.folder,
        account=user,
        restart_seconds=REJOIN_SECONDS,
        explain=_error_line,
    )


def _explain(text: str, key: str) -> str | None:
    if NOT_ACTIVATED in text:
        return (
            f"the coordinator does not admit this node: its key ({key}) is not enrolled, or it was "
            f"killed less than a minute ago; trying again every {REJOIN_SECONDS:.0f} s"
        )
    if "the coordinator's answer" in text:
        return "the coordinator's answer was larger than allowed and was cut off; trying again"
    if "MemoryError" in text:
        return "the SuperNode reached its memory limit; raise --max-memory; trying again"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the coordinator's certificate is no longer trusted; check --ca with its operator"
    if any(words in text for words in REJECTED):
        return (
            f"the coordinator does not admit this node: its key ({key}) is not enrolled, or this "
            f"machine's clock is wrong; trying again every {REJOIN_SECONDS:.0f} s"
        )
    return None


def _error_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return f"the app: {lines[-1].removeprefix('error: ')}" if lines else None


def _cause(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
