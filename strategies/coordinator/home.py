"""The coordinator's folder: its files and its settings."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fl_ppseg.config.section import Section
from fl_ppseg.deployment.certificates import LOOPBACK, Pair, issue, make_authority, rehearse
from fl_ppseg.deployment.settings import load_settings, save_settings
from fl_ppseg.system.files import make_private_folder, write_atomically

Port = Annotated[int, Field(gt=0, lt=65536)]
LINK_HOST = "127.0.0.1"
"""Address of the SuperLink: other machines cannot reach it."""


class Settings(Section):
    """Settings of a coordinator, given to `init`."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Host names and addresses that nodes connect to."""
    bind: str = ""
    """Address that the proxy listens on; empty: all addresses of this machine."""
    port: Port = 9443
    """Port that nodes connect to."""
    link_port: Port = 9092
    """Port of the SuperLink on the loopback."""
    insecure: bool = False
    """No TLS, no enrolment, no proxy: for tests on one machine."""


class Home:
    """A coordinator's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.settings_file = self.folder / "coordinator.yaml"
        self.authority = Pair(self.folder / "ca.crt", self.folder / "ca.key")
        self.server = Pair(self.folder / "server.crt", self.folder / "server.key")
        self.link_authority = Pair(self.folder / "link-ca.crt", self.folder / "link-ca.key")
        self.link = Pair(self.folder / "link.crt", self.folder / "link.key")
        self.proxy_config = self.folder / "proxy.cfg"
        self.proxy_pem = self.folder / "proxy.pem"
        self.proxy_script = self.folder / "proxy.lua"
        self.gate = self.folder / "gate.sock"
        self.nodes = self.folder / "nodes"
        self.revoked_nodes = self.folder / "revoked"
        self.database = self.folder / "state.db"
        self.flower = self.folder / "flwr"
        self.logs = self.folder / "logs"

    @property
    def settings(self) -> Settings:
        """What `init` was told.

        Raises:
            InputError: The file is missing or damaged.
        """
        init = f"strategies.coordinator init --home {self.folder} --host NAME"
        return load_settings(Settings, self.settings_file, "coordinator", init)

    def create(self, settings: Settings, days: int, given: tuple[Pair, Path] | None) -> None:
        """Make the folder with its certificates; enrolled keys of an earlier one stay.

        Args:
            settings: Written to the folder.
            days: How long new certificates are valid.
            given: A certificate with its key and the authority that nodes trust, used in place of
                new ones.

        Raises:
            InputError: Nodes would refuse the given certificate.
        """
        make_private_folder(self.folder)
        if not settings.insecure:
            self._certify(settings, days, given)
        for folder in (self.nodes, self.revoked_nodes, self.flower, self.logs):
            folder.mkdir(exist_ok=True, mode=0o700)
        save_settings(settings, self.settings_file)

    def check_certificates(self) -> None:
        """Check that nodes will accept the certificates.

        Raises:
            InputError: They are expired, do not belong together, or are for another host.
        """
        for host in self.settings.hosts:
            rehearse(self.server, self.authority.certificate, host)
        rehearse(self.link, self.link_authority.certificate, LINK_HOST)

    def enrolled(self) -> dict[str, Path]:
        """Public keys by client."""
        return {path.stem: path for path in sorted(self.nodes.glob("*.pub"))}

    def revoked(self) -> list[tuple[str, Path]]:
        """Revoked keys, each with its client."""
        found = sorted(self.revoked_nodes.glob("*~*.pub"))
        return [(path.stem.rpartition("~")[0], path) for path in found]

    def _certify(self, settings: Settings, days: int, given: tuple[Pair, Path] | None) -> None:
        if given is not None:
            pair, authority = given
            for host in settings.hosts:
                rehearse(pair, authority, host)
            places = (*self.server, self.authority.certificate)
            for source, target in zip((*pair, authority), places, strict=True):
                write_atomically(target, source.read_bytes(), mode=0o600)
            self.authority.key.unlink(missing_ok=True)
        else:
            if not all(path.exists() for path in self.authority):
                make_authority(self.authority, days)
            issue(self.authority, self.server, settings.hosts, days)
        make_authority(self.link_authority, days)
        issue(self.link_authority, self.link, LOOPBACK, days)
        self.link_authority.key.unlink()  # it will sign nothing else
