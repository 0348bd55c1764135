"""`start`: the SuperNode and the app, each under its own user, until they are told to stop."""

import os
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from clients.node.home import AppHome, Home, Settings
from fl_ppseg.deployment.certificates import reason, trusting
from fl_ppseg.deployment.identity import fingerprint
from fl_ppseg.deployment.services import (
    Account,
    Say,
    Service,
    Supervisor,
    account,
    environment,
    program,
)
from fl_ppseg.errors import InputError

LOOPBACK = "127.0.0.1"
TRY_SECONDS = 5.0
"""Between two attempts to reach the coordinator, and how long one may take."""
REJOIN_SECONDS = 10.0
"""Between two attempts to join: Flower refuses a node for a minute after it was killed."""
ASTRAY = (
    "Failed to (receive|send) message|Ignoring message|"
    "Cannot (get processing duration|record end time)|a task ended with status",
    "a message was lost on the way; joining again, so that the coordinator sends it again",
)
"""What a SuperNode writes when it drops a message, or holds an answer to one that it has dropped:
from then on it sends the answer before the last, or its app waits for the rest of the message for
ever. And what the app writes when the process of a task dies: the SuperNode waits for the rest of
its answer for ever. Nobody else is told; the node that leaves and comes back is asked again."""


@dataclass(frozen=True)
class Start:
    """How a node is to be started."""

    coordinator: str
    """host:port"""
    authority: Path | None
    """Certificates to trust; none: the system's."""
    policy: Path
    """The owner's policy; its encrypted shards lie beside it."""
    app_user: str | None
    """User of the app; none: the same as the SuperNode's."""
    bundle_hash: str | None
    """The only bundle that this node takes requests of; none: any of this version."""
    port: int
    """Of the SuperNode, on the loopback, for the app."""
    with_app: bool = True
    insecure: bool = False


def serve(home: Home, start: Start, say: Say) -> None:
    """Run the node's programs until interrupted.

    Raises:
        InputError: The coordinator's certificate is not to be trusted, or users or files do not
            fit.
    """
    settings = home.settings
    services = [_supernode(home, settings, start)]
    if start.with_app:
        services.append(_app(home, settings, start, say))
    reach(start, say)
    with Supervisor(say) as supervisor:
        for service in services:
            supervisor.start(service)
        supervisor.watch()


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


def _supernode(home: Home, settings: Settings, start: Start) -> Service:
    if '"' in str(start.policy):
        raise InputError(f"{start.policy}: Flower takes no quotation marks in a path; rename it")
    if start.insecure:
        trust = ["--insecure"]
    else:
        trust = ["--auth-supernode-private-key", str(home.key)]
        if start.authority is not None:
            trust += ["--root-certificates", str(start.authority)]
    return Service(
        name="the SuperNode",
        command=[
            program("flower-supernode"),
            *("--superlink", start.coordinator),
            *trust,
            *("--host", LOOPBACK, "--port", str(start.port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(home.secret)),
            *("--node-config", f'policy="{start.policy}"'),
        ],
        log=home.logs / "supernode.log",
        environment=environment(home.flower),
        folder=home.folder,
        account=home.owner(),
        restart_seconds=REJOIN_SECONDS,
        explain=lambda text: _explain(text, fingerprint(home.public)),
        news=("SuperNode ID", f"connected to {start.coordinator} as {settings.city}"),
        astray=ASTRAY,
        also_read=(home.logs / "app.log",),
    )


def _app(home: Home, settings: Settings, start: Start, say: Say) -> Service:
    app = AppHome(settings.app_home)
    pin = ["--bundle-hash", start.bundle_hash] if start.bundle_hash else []
    return Service(
        name="the app",
        command=[
            *(sys.executable, "-m", "clients.node", "app", "--home", str(app.folder)),
            *("--port", str(start.port), "--policy", str(start.policy), *pin),
        ],
        log=home.logs / "app.log",
        environment=environment(app.flower),
        folder=app.folder,
        account=_app_account(home, app, start, say),
        restart_seconds=REJOIN_SECONDS,
        explain=_error_line,
    )


def _app_account(home: Home, app: AppHome, start: Start, say: Say) -> Account | None:
    if start.app_user is None:
        say(
            "the app runs as the SuperNode's user and could read the node's key; to part them, "
            "start as root with --app-user USER"
        )
        return home.owner()
    user = account(start.app_user)
    if user.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise InputError(f"--app-user {user.name}: only root may start programs as another user")
    if user.uid == home.folder.stat().st_uid:
        raise InputError(f"--app-user {user.name} owns {home.folder}; the app wants another user")
    app.give(user)
    return user


def _explain(text: str, key: str) -> str | None:
    if "[code: 2004]" in text:
        return (
            f"the coordinator does not admit this node: its key ({key}) is not enrolled, or it was "
            f"killed less than a minute ago; trying again every {REJOIN_SECONDS:.0f} s"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the coordinator's certificate is not to be trusted any more; check --ca with them"
    if "401" in text or "terminated gracefully" in text:
        return (
            f"the coordinator does not accept this node's signature: its key ({key}) is not "
            "enrolled any more, or this machine's clock is wrong; trying again"
        )
    return None


def _error_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return f"the app: {lines[-1].removeprefix('error: ')}" if lines else None


def _cause(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()
