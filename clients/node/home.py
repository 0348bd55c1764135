"""A node's folders and their owners: created once by `init`, checked whenever a node starts."""

import os
import secrets
import stat
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import AfterValidator, model_validator

from clients.policy.pledges import PLEDGES, new_record
from fl_ppseg.config.names import DeployedName
from fl_ppseg.config.section import Section
from fl_ppseg.deployment.accounts import USER, Account, account
from fl_ppseg.deployment.identity import key_pair
from fl_ppseg.deployment.settings import load_settings, text_of
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.trusted_path import user_name

SECRET_BYTES = 32
MAX_PATH = 4096
SETTINGS, PUBLIC, KEY, SECRET = "node.yaml", "node.pub", "node.key", "app.secret"
NODE, APP, LOGS, FLOWER, STATE = "node", "app", "logs", "flwr", "state"
LEDGER, APART = "ledger.jsonl", "apart"


def _check_path(path: Path) -> Path:
    if (
        len(str(path)) > MAX_PATH
        or not path.is_absolute()
        or ".." in path.parts
        or not str(path).isprintable()
    ):
        raise ValueError(
            f"expected an absolute path of a folder without '..', got {str(path)[:200]!r}"
        )
    return path


def _check_user_name(text: str) -> str:
    if not USER.fullmatch(text):
        raise ValueError(f"expected the name of a user, got {text[:80]!r}")
    return text


class Settings(Section):
    """The settings that `init` was given."""

    renamed: ClassVar = {"city": "client"}

    client: DeployedName
    """The client that the node acts for."""
    app_home: Annotated[Path, AfterValidator(_check_path)]
    """The folder of the app's own user."""
    node_user: Annotated[str, AfterValidator(_check_user_name)] | None = None
    """User of the SuperNode; None: whoever ran init."""
    app_user: Annotated[str, AfterValidator(_check_user_name)] | None = None
    """User of the app; None: the same as the SuperNode's."""

    @model_validator(mode="after")
    def _two_users(self) -> Self:
        if (self.node_user is None) != (self.app_user is None):
            raise ValueError("expected both node_user and app_user, or neither")
        if self.node_user is not None and self.node_user == self.app_user:
            raise ValueError(
                f"the app must have another user than the SuperNode, got {self.app_user} for both"
            )
        return self

    @property
    def users(self) -> "Users | None":
        """The two users; None if the node has only one.

        Raises:
            InputError: There are no such users, one of them is root, or both are the same.
        """
        if self.node_user is None or self.app_user is None:
            return None
        users = Users(account(self.node_user), account(self.app_user))
        if 0 in (users.node.uid, users.app.uid) or users.node.uid == users.app.uid:
            raise InputError(
                f"expected two different users other than root for SuperNode and app, got "
                f"{self.node_user} and {self.app_user}; create them, then run init again"
            )
        return users


class Users(NamedTuple):
    """Who a node's two programs run as."""

    node: Account
    app: Account


class Home:
    """A node's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.settings_file = self.folder / SETTINGS
        self.public = self.folder / PUBLIC
        self.node = self.folder / NODE
        self.key = self.node / KEY
        self.secret = self.node / SECRET
        self.flower = self.node / FLOWER

    @property
    def settings(self) -> Settings:
        """The settings that `init` was given.

        Raises:
            InputError: There was no `init`, or its file is damaged or not trusted.
        """
        init = f"clients.node init --home {self.folder} --client NAME"
        return load_settings(Settings, self.settings_file, "node", init)

    @property
    def logs(self) -> Path:
        """Folder of the logs, which belongs to whoever runs `start`."""
        own = self.folder.stat().st_uid == os.geteuid()
        return (self.folder if own else self.node) / LOGS

    def create(self, settings: Settings) -> None:
        """Create the folders of a new node with a key pair, and give them to their users.

        Only here do files change their owner: by descriptor, and before anybody else could write
        there.

        Raises:
            InputError: The folders are in use, or the users do not fit.
        """
        users = settings.users
        if users is not None and os.geteuid() != 0:
            raise InputError(
                "--node-user, --app-user: only root can give folders to other users; run init as "
                "root, or leave both out"
            )
        private, public = key_pair(settings.client)
        secret = secrets.token_bytes(SECRET_BYTES)
        app_home = AppHome(settings.app_home)
        with _make_folder(self.folder, "choose another --home; a node keeps its key") as home:
            home.chown(mode=0o700 if users is None else 0o755)
            with home.make_child(NODE) as node:
                node.write(KEY, private, exclusive=True)
                node.write(SECRET, secret, exclusive=True)
                node.make_child(FLOWER).close()
                _give(node, (KEY, SECRET), (FLOWER,), users and users.node)
            with _make_folder(app_home.folder, "choose another --app-home") as app:
                app.write(SECRET, secret, exclusive=True)
                app.make_child(FLOWER).close()
                with app.make_child(STATE) as state:
                    state.write(LEDGER, b"", exclusive=True)
                    state.write(PLEDGES, new_record(), exclusive=True)
                    _give(state, (LEDGER, PLEDGES), (), users and users.app)
                if users is not None:
                    app.write(APART, b"", exclusive=True)
                _give(app, (SECRET,), (FLOWER,), users and users.app)
            home.make_child(LOGS).close()
            home.write(PUBLIC, public, 0o644, exclusive=True)
            home.write(SETTINGS, text_of(settings), 0o644, exclusive=True)

    def check(self, settings: Settings, users: Users | None, with_app: bool) -> None:
        """Check that every folder belongs to its user; nothing is changed.

        Args:
            settings: Of this node.
            users: Of the two programs; None: this process's own user runs both.
            with_app: Whether the app is started too.

        Raises:
            InputError: A folder is missing, a link, or belongs to somebody else.
        """
        with Directory.open(self.folder) as home:
            _check_owner(home, NODE, users.node.uid if users else os.geteuid())
        if with_app:
            AppHome(settings.app_home).check(users.app.uid if users else os.geteuid())


class AppHome:
    """The folder of the app's own user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.secret = self.folder / SECRET
        self.flower = self.folder / FLOWER
        self.state = self.folder / STATE

    @property
    def has_own_user(self) -> bool:
        """Whether the app has a user of its own."""
        return (self.folder / APART).exists()

    def check(self, uid: int) -> None:
        """Check that the folder belongs to a user.

        Raises:
            InputError: It is missing, a link, or belongs to somebody else.
        """
        with Directory.open(self.folder.parent) as folder:
            _check_owner(folder, self.folder.name, uid)


def _make_folder(path: Path, why: str) -> Directory:
    """Make a folder, or open an empty one.

    Raises:
        InputError: It is in use; the message ends with `why`.
    """
    folder = Directory.open(path, make=0o700)
    if folder.entries():
        folder.close()
        raise InputError(f"{path}: expected a new or an empty folder, got one in use; {why}")
    return folder


def _give(
    folder: Directory, files: tuple[str, ...], folders: tuple[str, ...], to: Account | None
) -> None:
    """Give a folder that was just made, and the named content, to its user; the folder last."""
    if to is None:
        return
    for name in (*files, *folders):
        os.chown(name, to.uid, to.gid, dir_fd=folder.descriptor, follow_symlinks=False)
    folder.chown(to.uid, to.gid, mode=0o700)


def _check_owner(folder: Directory, name: str, uid: int) -> None:
    found, path = folder.find(name), folder.path / name
    if found is None:
        raise InputError(f"{path}: missing; create the node's folders with clients.node init")
    mode = stat.S_IMODE(found.status.st_mode)
    if found.kind != "folder" or found.status.st_uid != uid or mode & 0o077:
        raise InputError(
            f"{path}: expected a folder of {user_name(uid)} with mode 0700, got a {found.kind} of "
            f"{user_name(found.status.st_uid)} with mode {mode:04o}; it was changed after init, so "
            "check what else was, then restore owner and mode"
        )
