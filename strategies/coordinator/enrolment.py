"""Enrolment: a public key for each city, in the coordinator's folder and at the SuperLink.

The folder decides. The proxy's gate reads it for every request; the SuperLink is updated from it at
every start, enrolment and revocation.
"""

import hashlib
from pathlib import Path

from fl_ppseg.config.city_names import deployed_city
from fl_ppseg.deployment.identity import fingerprint, read_public_key
from fl_ppseg.flower.superlink import SuperLink
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import sync, write_atomically
from strategies.coordinator.home import Home


def enrol(home: Home, city: str, public: Path, *, replace: bool) -> str:
    """Enrol the key of a city's node; enrolling the same key again changes nothing.

    Args:
        home: The coordinator's folder.
        city: City of the node.
        public: Its node.pub.
        replace: Whether to replace another key of this city.

    Returns:
        The key's fingerprint.

    Raises:
        InputError: The city has another key, the key is enrolled for another city or revoked, or
            the file is not a public key.
    """
    deployed_city(city)
    key = read_public_key(public)
    for other, path in home.revoked():
        if read_public_key(path) == key:
            raise InputError(
                f"{public}: this key was revoked for {other} and cannot be enrolled again; its "
                "owner makes a new one: python -m clients.node init with a new --home"
            )
    for other, path in home.enrolled().items():
        is_same_key = read_public_key(path) == key
        if other != city and is_same_key:
            raise InputError(
                f"{public}: this key is enrolled for {other}; every city needs its own key"
            )
        if other == city and not is_same_key and not replace:
            raise InputError(
                f"{city} is enrolled with another key ({fingerprint(path)}); add --replace if its "
                "owner has confirmed the new one"
            )
    before = home.enrolled().get(city)
    if before is not None and read_public_key(before) != key:
        _set_aside(home, city, before)
    write_atomically(home.nodes / f"{city}.pub", public.read_bytes())
    return fingerprint(public)


def revoke(home: Home, city: str) -> str:
    """Revoke the key of a city's node; it is kept among the revoked ones.

    Returns:
        The key's fingerprint.

    Raises:
        InputError: The city is not enrolled.
    """
    path = home.enrolled().get(city)
    if path is None:
        names = ", ".join(home.enrolled()) or "none"
        raise InputError(f"{city!r} is not enrolled; enrolled: {names}")
    digest = fingerprint(path)
    _set_aside(home, city, path)
    return digest


def _set_aside(home: Home, city: str, path: Path) -> None:
    """Move a key to the revoked ones: Flower's SuperLink accepts no key a second time."""
    home.revoked_nodes.mkdir(exist_ok=True, mode=0o700)  # missing in a folder of an earlier version
    digest = hashlib.sha256(read_public_key(path)).hexdigest()[:16]
    path.replace(home.revoked_nodes / f"{city}~{digest}.pub")
    sync(home.revoked_nodes)
    sync(home.nodes)


def register_enrolled(home: Home, link: SuperLink) -> None:
    """Register all enrolled nodes at the SuperLink, and unregister all others."""
    enrolled = {read_public_key(path): city for city, path in home.enrolled().items()}
    known = {node.public_key: node for node in link.nodes()}
    for key, node in known.items():
        if enrolled.get(key) != node.city:
            link.unregister(node.node_id)
    for key, city in enrolled.items():
        if key not in known or known[key].city != city:
            link.register(city, key)
