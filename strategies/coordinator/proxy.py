"""HAProxy before the SuperLink: requests that an enrolled node needs pass, all others are refused.

Paths are matched whole and as they were sent, so that no `..` and no `%2e` leads elsewhere. The
SuperLink reads bodies before it authenticates their sender; so the proxy asks the gate first, with
the headers alone, and forwards no byte of a body that is not from an enrolled node, has no length,
or is longer than what Flower sends. HAProxy's integers have 32 bits: the number of digits is
checked before the number. Resources are limited by address for strangers and by client for nodes:

    connections                     MAX_CONNECTIONS, at most PER_ADDRESS from one address
    until all headers have come      10 s; TLS handshakes and pauses of a sender 20 s
    bodies in the SuperLink         MAX_BODIES x MAX_REQUEST_BYTES = 512 MiB, PER_CLIENT per client
"""

import re
import shutil
import subprocess
from pathlib import Path
from string import Template
from typing import Final

from fl_ppseg.flower.fleet import NODE_PATHS, SIGNED_HEADERS
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically
from strategies.coordinator.home import LINK_HOST, Home

MAX_REQUEST_BYTES: Final = 8 * 2**20
"""Longest body: Flower sends objects in parts of 5 MiB."""
MAX_CONNECTIONS: Final = 2048
"""Connections of all addresses together."""
PER_ADDRESS: Final = 128
"""Connections of one address at a time: several nodes may share one, each has up to nine."""
RATE_PER_ADDRESS: Final = 400
"""New connections of one address in ten seconds."""
MAX_BODIES: Final = 64
"""Requests that the SuperLink works on at a time; others wait in the proxy, unread."""
PER_CLIENT: Final = 16
"""Requests of one client at a time: Flower's node sends up to eight objects at once."""

CONFIG: Final = Template("""\
# Written by `python -m strategies.coordinator start`; changes are lost.
global
    maxconn $max_connections
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.2
    lua-load "$script"

defaults
    mode http
    log global
    option httplog
    option dontlognull
    timeout connect 5s
    timeout http-request 10s
    timeout http-keep-alive 10s
    timeout client 20s
    timeout server 90s
    timeout queue 30s
    timeout tunnel 10s

backend addresses
    stick-table type ipv6 size 100k expire 60s store conn_cur,conn_rate(10s)

backend clients
    stick-table type string len 64 size 10k expire 60s store conn_cur

frontend nodes
    bind $bind:$port ssl crt "$pem" alpn http/1.1
    option disable-h2-upgrade
    tcp-request connection track-sc0 src,ipmask(32,64) table addresses
    tcp-request connection reject if { sc0_conn_cur gt $per_address }
    tcp-request connection reject if { sc0_conn_rate gt $rate_per_address }
    acl of_a_node path $paths
    http-request deny deny_status 403 unless METH_POST of_a_node
    http-request deny deny_status 400 unless { req.hdr_cnt(content-length) eq 1 }
    http-request deny deny_status 400 if { req.hdr(transfer-encoding) -m found }
    http-request deny deny_status 413 if { req.hdr(content-length),length gt $max_digits }
    http-request deny deny_status 413 if { req.hdr_val(content-length) gt $max_bytes }
    http-request lua.ask_the_gate
    http-request deny deny_status 503 if { var(txn.is_unasked) -m bool }
    http-request deny deny_status 401 unless { var(txn.client) -m found }
    http-request track-sc1 var(txn.client) table clients
    http-request deny deny_status 503 if { sc1_conn_cur gt $per_client }
    http-request set-log-level silent
    default_backend superlink

backend superlink
    # A node drops its message after 500 (the database is locked) and tries again after 503.
    http-response set-status 503 if { status 500 }
    default-server ssl verify required ca-file "$link_authority" verifyhost localhost
    server superlink $link maxconn $max_bodies
""")
SCRIPT: Final = Template("""\
-- Written by `python -m strategies.coordinator start`; changes are lost.
-- Whose request this is, from its headers alone: the client in txn.client, unset for strangers.
core.register_action("ask_the_gate", { "http-req" }, function(txn)
    local headers = txn.http:req_get_headers()
    local words = {}
    for index, name in ipairs({ $headers }) do
        local values = headers[name]
        if values == nil or values[1] ~= nil or #values[0] > 1024 or values[0]:find("%s") then
            return
        end
        words[index] = values[0]
    end
    local gate = core.tcp()
    gate:settimeout(5)
    if gate:connect("unix@$gate") ~= 1 then
        txn:set_var("txn.is_unasked", true)
        return
    end
    gate:send(table.concat(words, " ") .. "\\n")
    local client = gate:receive("*l")
    gate:close()
    if client == nil then
        txn:set_var("txn.is_unasked", true)
    elseif client ~= "" then
        txn:set_var("txn.client", client)
    end
end)
""")


def write_proxy(home: Home) -> None:
    """Write HAProxy's configuration, and certificate and key in the one file that it needs."""
    settings = home.settings
    config = CONFIG.substitute(
        bind=settings.bind,
        port=settings.port,
        pem=_quotable(home.proxy_pem),
        paths=" ".join(NODE_PATHS),
        script=_quotable(home.proxy_script),
        max_bytes=MAX_REQUEST_BYTES,
        max_digits=len(str(MAX_REQUEST_BYTES)),
        max_connections=MAX_CONNECTIONS,
        per_address=PER_ADDRESS,
        rate_per_address=RATE_PER_ADDRESS,
        max_bodies=MAX_BODIES,
        per_client=PER_CLIENT,
        link=f"{LINK_HOST}:{settings.link_port}",
        link_authority=_quotable(home.link_authority.certificate),
    )
    pem = home.server.certificate.read_bytes() + b"\n" + home.server.key.read_bytes()
    named = ", ".join(f'"{header.lower()}"' for header in SIGNED_HEADERS)
    script = SCRIPT.substitute(headers=named, gate=home.gate.name)
    write_atomically(home.proxy_pem, pem, mode=0o600)
    write_atomically(home.proxy_script, script, mode=0o600)
    write_atomically(home.proxy_config, config, mode=0o600)


def _quotable(path: Path) -> str:
    """A path as it stands between double quotes, where HAProxy reads variables and escapes."""
    return re.sub(r'([\\"$])', r"\\\1", str(path))


def haproxy() -> str:
    """Path of the HAProxy program.

    Raises:
        InputError: It is not installed, or was built without Lua.
    """
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise InputError(
            "haproxy is not installed; without it any node could send commands to all others; "
            "install it (Debian, Ubuntu: apt-get install haproxy; Fedora: dnf install haproxy)"
        )
    built = subprocess.run([found, "-vv"], capture_output=True, text=True, check=False).stdout
    if "+LUA" not in built and "USE_LUA=1" not in built:
        raise InputError(
            f"{found} was built without Lua, which authenticates requests; install the package "
            "of your distribution (Debian, Ubuntu and Fedora build it with Lua)"
        )
    return found
