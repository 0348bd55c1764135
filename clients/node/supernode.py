"""`start`: the SuperNode and the app, each under its own user, until they are told to stop."""

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
"""Between two attempts to reach the coordinator, and how long one may take."""
REJOIN_SECONDS = 10.0
"""Between two attempts to join: Flower refuses a node for a minute after it was killed."""
ASTRAY = (
    "|".join((*MESSAGE_LOST, "a task ended with status")),
    "a message was lost on the way; joining again, so that the coordinator sends it again",
)
"""What a SuperNode writes when it drops a message, and what the app writes when the process of a
task dies: the SuperNode waits for the rest of its answer without end. Nobody else is told; the node
that leaves and comes back is asked again."""


@dataclass(frozen=True)
class Start:
    """How a node is to be started."""

    coordinator: str
    """host:port"""
    authority: Path | None
    """Certificates to trust; none: the system's."""
    policy: Path
    """The owner's policy; its encrypted shards lie beside it."""
    bundle_hash: str | None
    """The only bundle that this node takes requests of; none: any of this version."""
    port: int
    """Of the SuperNode, on the loopback, for the app."""
    with_app: bool = True
    insecure: bool = False
    limits: Limits = USUAL
    """What SuperNode and app may take of the machine."""


def serve(home: Home, start: Start, say: Say) -> None:
    """Run the node's programs until interrupted.

    Root gives each program its user and keeps nothing but the right to do that; it opens no file
    that one of the two may write, and talks to nobody.

    Raises:
        InputError: The coordinator's certificate is not to be trusted, or users or files do not
            fit.
    """
    settings = home.settings
    alone = os.geteuid() != 0 and not start.with_app  # needs to know no other user
    users = None if alone else settings.users
    home.check(settings, users, start.with_app)
    _check_starter(settings, users, start, say)
    node, app = users or (None, None)
    services = [_supernode(home, settings, start, node)]
    if start.with_app:
        services.append(_app(home, settings, start, app))
    as_user(node, lambda: reach(start, say))
    if node is not None:
        drop_root_capabilities()
    with Supervisor(say) as supervisor:
        for service in services:
            supervisor.start(service)
        supervisor.watch()


def _check_starter(settings: Settings, users: Users | None, start: Start, say: Say) -> None:
    """See that who starts can start what is to be started, and whose the policy is.

    Raises:
        InputError: Only root or another user could, or the policy is one of the programs' own.
    """
    if users is None and settings.node_user is None:
        say(
            "SuperNode and app run as the same user, so that the app could read the node's key; to "
            "part them, make the node as root with init --node-user fl-node --app-user fl-app"
        )
    if users is None:
        return
    if os.geteuid() != 0:
        raise InputError(
            f"only root may start programs as {users.node.name} and {users.app.name}; without "
            f"root, start as {users.node.name} with --without-app, and clients.node app as "
            f"{users.app.name} (clients.node template writes units that do so)"
        )
    if start.with_app:
        check_owner(start.policy, {users.node.uid, users.app.uid})
    say(
        f"root starts the SuperNode as {users.node.name} and the app as {users.app.name} and is "
        "needed for nothing else; the systemd units of clients.node template need no root"
    )


def reach(start: Start, say: Say) -> None:
    """Wait until the coordinator answers, and check who it is.

    Raises:
        InputError: The address is none, or its certificate is not to be trusted.
    """
    host, port = address_of(start.coordinator)
    context = None if start.insecure else trusting(start.authority)
    said = False
    while True:
        try:
            with socket.create_connection((host, port), TRY_SECONDS) as plain:
                if context is not None:
                    context.wrap_socket(plain, server_hostname=host).close()
            return
        except ssl.SSLCertVerificationError as error:
            raise InputError(
                f"{start.coordinator} shows a certificate that is not to be trusted "
                f"({reason(error)}); check --coordinator and --ca with who runs it"
            ) from None
        except OSError as error:
            if not said:
                say(f"{start.coordinator} does not answer ({_cause(error)}); trying on")
            said = True
            time.sleep(TRY_SECONDS)


def address_of(text: str) -> tuple[str, int]:
    """Split `host:port`.

    >>> address_of("coordinator.example:9443"), address_of("[::1]:9443")
    (('coordinator.example', 9443), ('::1', 9443))

    Raises:
        InputError: It has another form.
    """
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"--coordinator {text!r}: wanted HOST:PORT, e.g. coordinator.example:9443")
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
        news=(CONNECTED, f"connected to {start.coordinator} as {settings.city}"),
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
        return "the coordinator sent more than any answer may have, and was cut off; trying again"
    if "MemoryError" in text:
        return "the SuperNode ran into its limit of memory; see --max-memory; trying again"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the coordinator's certificate is not to be trusted any more; check --ca with them"
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
