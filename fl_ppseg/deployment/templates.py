"""Files for real use, systemd units and compose files, to be filled in and written out."""

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically

KINDS = ("systemd", "compose")
CHECKOUT = Path(__file__).resolve().parents[2]


def write_templates(role: str, kind: str, out: Path, values: Mapping[str, object]) -> list[Path]:
    """Fill in the templates of a role and write them.

    Args:
        role: `coordinator` or `node`.
        kind: One of `KINDS`.
        out: Folder to write into.
        values: What the templates name, but for where Python, this checkout and `out` are.

    Returns:
        The written files.

    Raises:
        InputError: Another file is there already.
    """
    folder = resources.files("fl_ppseg.deployment") / "templates" / kind
    own = {"python": sys.executable, "checkout": CHECKOUT, "out": out.absolute()}
    texts = {
        out / source.name: Template(source.read_text("utf-8")).substitute(own | dict(values))
        for source in folder.iterdir()
        if role in source.name or source.name == "Dockerfile"
    }
    for path, text in texts.items():
        if path.exists() and path.read_text("utf-8") != text:
            raise InputError(f"{path}: another file is there already; choose another --out")
    for path, text in texts.items():
        write_atomically(path, text)
    return sorted(texts)
