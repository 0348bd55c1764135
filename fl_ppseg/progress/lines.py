"""Lines that hold names given by others (paths, clients, classes), never parsed as markup."""

from rich.console import Console
from rich.text import Text


def say(console: Console, line: str) -> None:
    """Print a line as it is: brackets are brackets, and no terminal folds a path."""
    console.print(Text(line), soft_wrap=True, highlight=False)
