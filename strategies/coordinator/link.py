"""The connection to the SuperLink of a coordinator's folder, over the loopback."""

from fl_ppseg.flower.superlink import SuperLink
from strategies.coordinator.home import LINK_HOST, Home


def connect(home: Home) -> SuperLink:
    """A client of the SuperLink that `start` runs; use it in a `with`."""
    settings = home.settings
    port = settings.port if settings.insecure else settings.link_port
    authority = None if settings.insecure else home.link_authority.certificate.read_bytes()
    remedy = f"start it with python -m strategies.coordinator start --home {home.folder}"
    return SuperLink(f"{LINK_HOST}:{port}", authority, remedy)
