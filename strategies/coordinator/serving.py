"""`start`: runs the SuperLink and the proxy until they are stopped."""

import socket
import subprocess
import time

from fl_ppseg.deployment.services import (
    POLL_SECONDS,
    Say,
    Service,
    Supervisor,
    environment,
    program,
)
from fl_ppseg.flower.superlink import NoAnswerError, SuperLink
from fl_ppseg.system.errors import InputError, RunError
from strategies.coordinator.enrolment import register_enrolled
from strategies.coordinator.gate import Gate
from strategies.coordinator.home import LINK_HOST, Home, Settings
from strategies.coordinator.link import connect
from strategies.coordinator.proxy import haproxy, write_proxy

READY_SECONDS = 120.0
"""Time that the SuperLink may take to start."""


def serve(home: Home, say: Say) -> None:
    """Run the coordinator's services until interrupted.

    Args:
        home: The coordinator's folder.
        say: Prints a line for the user.

    Raises:
        InputError: HAProxy is missing, nodes would refuse a certificate, or a port is in use.
        RunError: The SuperLink does not start.
    """
    settings = home.settings
    proxy = None if settings.insecure else _proxy(home)
    for port in {settings.port, settings.link_port}:
        _check_free(settings, port)
    with Supervisor(say) as supervisor:
        supervisor.start(superlink(home))
        with connect(home) as link:
            _wait(link, supervisor, home)
            if not settings.insecure:
                register_enrolled(home, link)
        if proxy is None:
            say(_welcome(home))
            supervisor.watch()
            return
        with Gate(home):
            supervisor.start(proxy)
            say(_welcome(home))
            supervisor.watch()


def superlink(home: Home) -> Service:
    """The SuperLink, on the loopback; without TLS and enrolment if the settings are insecure."""
    settings = home.settings
    if settings.insecure:
        link = ["--insecure", "--host", settings.bind or LINK_HOST, "--port", str(settings.port)]
    else:
        link = [
            *("--host", LINK_HOST, "--port", str(settings.link_port)),
            *("--ssl-ca-certfile", str(home.link_authority.certificate)),
            *("--ssl-certfile", str(home.link.certificate)),
            *("--ssl-keyfile", str(home.link.key)),
            "--enable-supernode-auth",
        ]
    return Service(
        name="the SuperLink",
        command=[
            program("flower-superlink"),
            *link,
            *("--database", str(home.database)),
            "--disable-runtime-dependency-installation",
        ],
        log=home.logs / "superlink.log",
        environment=environment(home.flower),
        folder=home.folder,
        needs_children=True,  # flower-superexec, without which runs stay pending indefinitely
    )


def _proxy(home: Home) -> Service:
    home.check_certificates()
    write_proxy(home)
    checked = subprocess.run(
        [haproxy(), "-c", "-q", "-f", str(home.proxy_config)],
        capture_output=True,
        text=True,
        check=False,
    )
    if checked.returncode:
        raise InputError(f"{home.proxy_config}: HAProxy rejects it ({checked.stderr.strip()})")
    return Service(
        name="the proxy",
        command=[haproxy(), "-db", "-f", str(home.proxy_config)],
        log=home.logs / "proxy.log",
        environment=environment(home.flower),
        folder=home.folder,
    )


def _check_free(settings: Settings, port: int) -> None:
    for host in {settings.bind or LINK_HOST, LINK_HOST}:
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) == 0:
                raise InputError(
                    f"port {port} of {host} is in use, perhaps by this coordinator started twice; "
                    "stop the other process, or give init --port and --link-port"
                )


def _wait(link: SuperLink, supervisor: Supervisor, home: Home) -> None:
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            link.nodes()
            return
        except NoAnswerError:
            if time.monotonic() >= end:
                raise RunError(
                    f"the SuperLink did not answer within {READY_SECONDS:.0f} s; see "
                    f"{home.logs / 'superlink.log'}"
                ) from None
        supervisor.poll()
        time.sleep(POLL_SECONDS)


def _welcome(home: Home) -> str:
    settings = home.settings
    address = f"{settings.hosts[0]}:{settings.port}"
    if settings.insecure:
        where = f"{settings.bind or LINK_HOST}:{settings.port}"
        return f"WARNING: no TLS and no enrolment; anyone who can reach {where} controls the nodes"
    clients = ", ".join(home.enrolled()) or "none yet"
    return f"ready: nodes connect to {address}; enrolled: {clients}; press Ctrl-C to stop"
