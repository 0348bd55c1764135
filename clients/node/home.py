"""A node's folders: its identity, and what its app needs apart from it."""

import os
import pwd
import secrets
import shutil
from pathlib import Path

from fl_ppseg.city_names import deployed_city
from fl_ppseg.config import Section
from fl_ppseg.deployment.identity import make_key_pair
from fl_ppseg.deployment.services import Account
from fl_ppseg.deployment.settings import load_settings, save_settings
from fl_ppseg.files import private_folder, write_atomically

SECRET_BYTES = 32


class Settings(Section):
    """What `init` was told."""

    city: str
    """Whose node it is."""
    app_home: Path
    """The folder of the app's own user."""


class Home:
    """A node's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.settings_file = self.folder / "node.yaml"
        self.key = self.folder / "node.key"
        self.public = self.folder / "node.pub"
        self.secret = self.folder / "app.secret"
        self.flower = self.folder / "flwr"
        self.logs = self.folder / "logs"

    @property
    def settings(self) -> Settings:
        """What `init` was told.

        Raises:
            InputError: There was none, or its file is damaged.
        """
        init = f"clients.node init --home {self.folder} --city NAME"
        return load_settings(Settings, self.settings_file, "node", init)

    def create(self, settings: Settings) -> None:
        """Make the folders of a new node, with a key pair of its own.

        Raises:
            InputError: The city has no fitting name, or a node lives here.
        """
        deployed_city(settings.city)
        private_folder(self.folder)
        make_key_pair(self.key, self.public, settings.city)
        secret = secrets.token_bytes(SECRET_BYTES)
        write_atomically(self.secret, secret, mode=0o600)
        for folder in (self.flower, self.logs):
            folder.mkdir(exist_ok=True, mode=0o700)
        app = AppHome(settings.app_home)
        private_folder(app.folder)
        write_atomically(app.secret, secret, mode=0o600)
        app.flower.mkdir(exist_ok=True, mode=0o700)
        save_settings(settings, self.settings_file)

    def owner(self) -> Account | None:
        """Who the SuperNode runs as where root starts it; none: whoever starts it."""
        found = self.folder.stat()
        if os.geteuid() != 0 or found.st_uid == 0:
            return None
        return Account(pwd.getpwuid(found.st_uid).pw_name, found.st_uid, found.st_gid)


class AppHome:
    """The folder of the app's own user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.secret = self.folder / "app.secret"
        self.flower = self.folder / "flwr"

    def give(self, user: Account) -> None:
        """Make a user the owner of everything here; only root can."""
        for path in (self.folder, *self.folder.rglob("*")):
            shutil.chown(path, user.uid, user.gid)
