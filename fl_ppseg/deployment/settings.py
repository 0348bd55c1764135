"""The settings of `init`, in a file of the folder that it made."""

from pathlib import Path
from typing import TypeVar

import yaml

from fl_ppseg.config.documents import parse_yaml
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_BYTES = 64 * 2**10
"""Largest file of settings, in bytes."""
Settings = TypeVar("Settings", bound=Section)


def load_settings(schema: type[Settings], path: Path, who: str, init: str) -> Settings:
    """Read the settings of `init`.

    Args:
        schema: Its fields.
        path: The file, in the folder that `init` made.
        who: Kind of the folder, `coordinator` or `node`.
        init: Arguments of `python -m` that make one.

    Raises:
        InputError: The file is missing or damaged, or others could have written it.
    """
    try:
        with Directory.open(path.parent) as folder:
            content = folder.read(path.name, MAX_BYTES, own=True)
    except FileNotFoundError:
        raise InputError(
            f"{path.parent} is not a folder of a {who}; make one with python -m {init}"
        ) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    return validate(schema, parse_yaml(text, str(path)), str(path))


def save_settings(settings: Section, path: Path) -> None:
    """Write the settings of `init`."""
    write_atomically(path, text_of(settings))


def text_of(settings: Section) -> str:
    """The settings of `init`, in YAML."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
