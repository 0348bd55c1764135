"""Templates -> pages. Whatever a template shows is escaped, and shows no path of a machine.

A template lies beside the module that fills it and is named by its place in the package, e.g.
`report/report.html`.
"""

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fl_ppseg.system.wording import sentence

_PATH = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+-]+){2,}[/\\]?|~[/\\][\w./\\-]+")


def render(template: str, **values: object) -> str:
    """A page, or a part of one.

    Args:
        template: Its place in the package.
        values: What it shows; a name that it lacks is an error.
    """
    return _environment().get_template(template).render(**values).rstrip("\n") + "\n"


def without_paths(text: str) -> str:
    """Hides absolute paths, which tell user names and machines.

    >>> without_paths("no file /home/ann/city.png")
    'no file [path]'
    """
    return _PATH.sub("[path]", text)


def unbroken(text: str) -> str:
    """Text whose hyphens end no line, as in `per-client`."""
    return text.replace("-", "\u2011")


def _shown(value: object) -> object:
    """What a template shows of a value, before it is escaped; markup stays as it is."""
    return value if isinstance(value, Markup) else without_paths(str(value))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fl_ppseg", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sentence": sentence, "unbroken": unbroken}
    return environment
