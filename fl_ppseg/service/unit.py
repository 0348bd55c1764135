"""The service as a systemd unit, or as a compose file with its Dockerfile."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fl_ppseg.deployment.templates import write_templates
from fl_ppseg.system.errors import InputError

SECRETS: Final = ("--tls-cert", "--tls-key", "--tokens")
"""Options whose files may be for the operator alone."""
FIRST_FREE_PORT: Final = 1024
"""Lower ones need a capability."""


def write_unit(kind: str, out: Path, options: Sequence[tuple[str, object]]) -> list[Path]:
    """Write the files that start the service with these options.

    Args:
        kind: `systemd` or `compose`.
        out: Folder to write to.
        options: Of the command, each with its value; files are made absolute.

    Raises:
        InputError: A value cannot be written, or another file exists already.
    """
    words = [(name, _absolute(value)) for name, value in options]
    own = [(name, value) for name, value in words if name not in SECRETS]
    given = dict(words)
    values: dict[str, object] = {
        "options": _flat(own),
        "all_options": _flat(words),
        "volumes": [_volume(value) for _, value in words if isinstance(value, Path)],
        "capabilities": "CAP_NET_BIND_SERVICE" if _is_low(given.get("--port")) else "",
        "private_devices": "yes" if given.get("--device", "cpu") == "cpu" else "no",
        "uid": os.geteuid(),
        "gid": os.getegid(),
    }
    return write_templates("serve", kind, out, values | _credentials(given))


def _absolute(value: object) -> object:
    return value.absolute() if isinstance(value, Path) else value


def _flat(options: Sequence[tuple[str, object]]) -> list[str]:
    return [str(word) for option in options for word in option]


def _volume(path: Path) -> str:
    if ":" in str(path):
        raise InputError(f"{path}: compose files take no path with a colon; rename it")
    return f"{path}:{path}:ro"


def _credentials(given: Mapping[str, object]) -> dict[str, str]:
    """What systemd hands over, a line for each file; it lies in the folder `%d` then."""
    lines = {
        name.strip("-").replace("-", "_"): "# no " + name
        if given.get(name) is None
        else f"LoadCredential={name[2:]}:{str(given[name]).replace('%', '%%')}"
        for name in SECRETS
    }
    words = [f"{name} %d/{name[2:]}" for name in SECRETS if given.get(name) is not None]
    return lines | {"secrets": " ".join(words)}


def _is_low(port: object) -> bool:
    return isinstance(port, int) and 0 < port < FIRST_FREE_PORT
