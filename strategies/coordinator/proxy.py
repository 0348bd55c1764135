"""HAProxy before the SuperLink: what a node needs comes through, everything else is refused.

The paths are matched whole and as they were sent, so that no `..` and no `%2e` leads elsewhere. A
request without a length, or longer than anything that Flower sends, is refused before the SuperLink
reads it: it reads bodies before it asks who sends them.
"""

import shutil
from string import Template
from typing import Final

from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically
from strategies.coordinator.home import LINK_HOST, Home

NODE_PATHS: Final = (
    "/v1/fleet/activate-node",
    "/v1/fleet/confirm-message-received",
    "/v1/fleet/deactivate-node",
    "/v1/fleet/get-fab",
    "/v1/fleet/get-run",
    "/v1/fleet/pull-messages",
    "/v1/fleet/pull-object",
    "/v1/fleet/push-messages",
    "/v1/fleet/push-object",
    "/v1/fleet/send-node-heartbeat",
)
"""What an enrolled node asks Flower 1.41 for. Registering is not among it: that is `enrol`."""
MAX_REQUEST_BYTES: Final = 32 * 2**20
"""Flower sends objects in parts of 5 MiB."""

CONFIG: Final = Template("""\
# Written by `python -m strategies.coordinator start`; changes are lost.
global
    maxconn 2048
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.2

defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout http-request 30s
    timeout client 90s
    timeout server 90s

frontend nodes
    bind $bind:$port ssl crt "$pem" alpn http/1.1
    acl of_a_node path $paths
    http-request deny deny_status 403 unless METH_POST of_a_node
    http-request deny deny_status 400 unless { req.hdr(content-length) -m found }
    http-request deny deny_status 413 if { req.hdr_val(content-length) gt $max_bytes }
    http-request set-log-level silent
    default_backend superlink

backend superlink
    # A node drops its message after 500 (the database is locked) and tries again after 503.
    http-response set-status 503 if { status 500 }
    server superlink $link ssl verify required ca-file "$link_authority" verifyhost localhost
""")


def write_proxy(home: Home) -> None:
    """Write HAProxy's configuration, and certificate and key in the one file that it wants."""
    settings = home.settings
    config = CONFIG.substitute(
        bind=settings.bind,
        port=settings.port,
        pem=home.proxy_pem,
        paths=" ".join(NODE_PATHS),
        max_bytes=MAX_REQUEST_BYTES,
        link=f"{LINK_HOST}:{settings.link_port}",
        link_authority=home.link_authority.certificate,
    )
    pem = home.server.certificate.read_bytes() + b"\n" + home.server.key.read_bytes()
    write_atomically(home.proxy_pem, pem, mode=0o600)
    write_atomically(home.proxy_config, config, mode=0o600)


def haproxy() -> str:
    """Where HAProxy lies.

    Raises:
        InputError: It is not installed.
    """
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise InputError(
            "haproxy is not installed, and without it any node could give orders to all others; "
            "install it (Debian, Ubuntu: apt-get install haproxy; Fedora: dnf install haproxy)"
        )
    return found
