"""What `init` was told, in a file of the folder that it made."""

from pathlib import Path
from typing import TypeVar

import yaml

from fl_ppseg.config import Section, read_yaml, validate
from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically

Settings = TypeVar("Settings", bound=Section)


def load_settings(schema: type[Settings], path: Path, who: str, init: str) -> Settings:
    """Read what `init` was told.

    Args:
        schema: Its fields.
        path: The file, in the folder that `init` made.
        who: Lives in that folder.
        init: What stands behind `python -m` to make one.

    Raises:
        InputError: Nobody lives there, or the file is damaged.
    """
    if not path.exists():
        raise InputError(f"{path.parent}: no {who} lives here; make one with python -m {init}")
    return validate(schema, read_yaml(path), str(path))


def save_settings(settings: Section, path: Path) -> None:
    """Write what `init` was told."""
    write_atomically(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
