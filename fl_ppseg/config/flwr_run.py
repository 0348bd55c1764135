"""Where `flwr run .` prepares a federation of its own where it is given none.

<user's state folder>/flwr-run/
    newest                     name of the newest run
    runs/<name>/               its run folder
    vaults/                    keys, shards and node folders of its simulated owners
"""

from pathlib import Path
from typing import Final

from fl_ppseg.config.documents import read_text
from fl_ppseg.config.names import NAME
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import user_folder, write_atomically

_NEWEST: Final = "newest"
_MAX_BYTES: Final = 255


def flwr_run_folder() -> Path:
    """The folder of the runs that nobody prepared."""
    return user_folder("flwr-run", "XDG_STATE_HOME", ".local/state").absolute()


def vaults_of_runs() -> Path:
    """The vaults of their simulated owners."""
    return flwr_run_folder() / "vaults"


def run_named(name: str) -> Path:
    """The run folder of a name."""
    return flwr_run_folder() / "runs" / name


def newest_run() -> Path | None:
    """The run that was prepared last; None if none was.

    Raises:
        InputError: The file that names it is damaged.
    """
    file = flwr_run_folder() / _NEWEST
    if not file.exists():
        return None
    name = read_text(file, _MAX_BYTES).strip()
    if not NAME.fullmatch(name):
        raise InputError(f"{file}: expected the name of a run; remove the file and run again")
    return run_named(name)


def set_newest_run(run: Path) -> None:
    """Name the run that nodes of a simulation belong to from now on."""
    write_atomically(flwr_run_folder() / _NEWEST, run.name + "\n")
