"""Enrolment: a public key for each client, in the coordinator's folder and at the SuperLink.

The folder decides. The proxy's gate reads it for every request; the SuperLink is updated from it at
every start, enrolment and revocation.
"""

import hashlib
from pathlib import Path

from fl_ppseg.config.client_names import deployed_name
from fl_ppseg.deployment.identity import fingerprint, read_public_key
from fl_ppseg.flower.superlink import SuperLink
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sync, write_atomically
from strategies.coordinator.home import Home


def enrol(home: Home, client: str, public: Path, *, replace: bool) -> str:
    """Enrol the key of a client's node; enrolling the same key again changes nothing.

    Args:
        home: The coordinator's folder.
        client: Client of the node.
        public: Its node.pub.
        replace: Whether to replace another key of this client.

    Returns:
        The key's fingerprint.

    Raises:
        InputError: The client has another key, the key is enrolled for another client or revoked,
            or the file is not a public key.
    """
    deployed_name(client)
    key = read_public_key(public)
    for other, path in home.revoked():
        if read_public_key(path) == key:
            raise InputError(
                f"{public}: this key was revoked for {other} and cannot be enrolled again; its "
                "owner makes a new one: python -m clients.node init with a new --home"
            )
    for other, path in home.enrolled().items():
        is_same_key = read_public_key(path) == key
        if other != client and is_same_key:
            raise InputError(
                f"{public}: this key is enrolled for {other}; every client needs its own key"
            )
        if other == client and not is_same_key and not replace:
            raise InputError(
                f"{client} is enrolled with another key ({fingerprint(path)}); add --replace if "
                "its owner has confirmed the new one"
            )
    before = home.enrolled().get(client)
    if before is not None and read_public_key(before) != key:
        _set_aside(home, client, before)
    write_atomically(home.nodes / f"{client}.pub", public.read_bytes())
    return fingerprint(public)


def revoke(home: Home, client: str) -> str:
    """Revoke the key of a client's node; it is kept among the revoked ones.

    Returns:
        The key's fingerprint.

    Raises:
        InputError: The client is not enrolled.
    """
    path = home.enrolled().get(client)
    if path is None:
        names = ", ".join(home.enrolled()) or "none"
        raise InputError(f"{client!r} is not enrolled; enrolled: {names}")
    digest = fingerprint(path)
    _set_aside(home, client, path)
    return digest


def _set_aside(home: Home, client: str, path: Path) -> None:
    """Move a key to the revoked ones: Flower's SuperLink accepts no key a second time."""
    home.revoked_nodes.mkdir(exist_ok=True, mode=0o700)  # missing in a folder of an earlier version
    digest = hashlib.sha256(read_public_key(path)).hexdigest()[:16]
    path.replace(home.revoked_nodes / f"{client}~{digest}.pub")
    sync(home.revoked_nodes)
    sync(home.nodes)


def register_enrolled(home: Home, link: SuperLink) -> None:
    """Register all enrolled nodes at the SuperLink, and unregister all others."""
    enrolled = {read_public_key(path): client for client, path in home.enrolled().items()}
    known = {node.public_key: node for node in link.nodes()}
    for key, node in known.items():
        if enrolled.get(key) != node.client:
            link.unregister(node.node_id)
    for key, client in enrolled.items():
        if key not in known or known[key].client != client:
            link.register(client, key)
