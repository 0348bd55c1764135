r"""Templates of systemd units and compose files, filled in and written out.

In a template, `$name` becomes a word of that kind of file, quoted so that blanks, `%`, `$` and
quotation marks in a path are kept; `$sh_name` becomes a word of a shell, for commands in comments;
`$raw_name` is written as it is, for numbers and user names.

>>> quoted("systemd", '/srv/my "100 %" $x'), quoted("compose", "/srv/$x: y")
('"/srv/my \\"100 %%\\" $$x"', '"/srv/$$x: y"')
"""

import json
import shlex
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from fl_ppseg.deployment.accounts import USER
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.installation import checkout, write_source

KINDS = ("systemd", "compose")
DOCKERFILE = "Dockerfile"
SOURCE = "source"
"""Folder that an image is built from where there is no checkout."""
USERS = ("user", "app_user")
"""Values that are user names."""


def write_templates(role: str, kind: str, out: Path, values: Mapping[str, object]) -> list[Path]:
    """Fill in the templates of a role and write them.

    Args:
        role: `coordinator` or `node`.
        kind: One of `KINDS`.
        out: Folder to write to.
        values: Values of the names in the templates, except the paths of Python, this checkout and
            `out`; each word of a sequence is quoted. `name` replaces NAME in a template's name.

    Returns:
        The written files, and the folder of the sources of an image where it is written too.

    Raises:
        InputError: A value cannot be written, or another file exists already.
    """
    folder = resources.files("fl_ppseg.deployment") / "templates" / kind
    own = {
        "python": sys.executable,
        "source": checkout() or out.absolute() / SOURCE,
        "dockerfile": out.absolute() / DOCKERFILE,
    }
    words = _words(kind, own | dict(values))
    texts = {
        out / source.name.replace("NAME", str(values.get("name", ""))): Template(
            source.read_text("utf-8")
        ).substitute(words)
        for source in folder.iterdir()
        if role in source.name or source.name.startswith(DOCKERFILE)
    }
    for path, text in texts.items():
        if path.exists() and path.read_text("utf-8") != text:
            raise InputError(f"{path}: another file exists already; choose another --out")
    for path, text in texts.items():
        write_atomically(path, text)
    if kind == "compose" and checkout() is None:
        return [*sorted(texts), write_source(out / SOURCE)]
    return sorted(texts)


def quoted(kind: str, text: str) -> str:
    """A value as one word of a kind of file."""
    if kind == "systemd":
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped.replace("%", "%%").replace("$", "$$")}"'
    return json.dumps(text, ensure_ascii=False).replace("$", "$$")  # YAML reads JSON's strings


def _words(kind: str, values: Mapping[str, object]) -> dict[str, str]:
    for name in USERS:
        if not USER.fullmatch(str(values.get(name, "root"))):
            raise InputError(f"{values[name]!r} is not a user name")
    if kind == "systemd" and "$" in sys.executable:
        raise InputError(f"{sys.executable}: systemd does not accept $ in the path of a program")
    between = " " if kind == "systemd" else ", "
    words = {}
    for name, value in values.items():
        each = list(map(str, value)) if isinstance(value, (list, tuple)) else [str(value)]
        for text in each:
            if not text.isprintable():
                raise InputError(f"{text!r}: expected only printable characters; rename it")
        words[name] = between.join(quoted(kind, text) for text in each)
        words[f"sh_{name}"] = shlex.join(each)
        words[f"raw_{name}"] = " ".join(each)
    return words
