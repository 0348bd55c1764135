"""`python -m clients.vault VERB`: which verbs there are; their options lie in `commands`.

A verb loads its own file of `commands` alone, and none is loaded to name them.
"""

from collections.abc import Callable, Mapping, Sequence

from fl_ppseg.system.command_line import Parser, log_to
from fl_ppseg.system.verbs import Act, Verb, dispatch

DESCRIPTION = """\
For the owner of the images, on a machine of its own: make a key, encrypt images for a training
node, look after both. Keys never leave the vault; the node gets a folder without any.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status.

    Raises:
        InputError: For options, folders or images that do not fit.
        RunError: If the disk is full, or a node folder is not as it should be.
    """
    log_to(None)
    verbs = {
        name: Verb(does, _later(group, name))
        for group, of_group in VERBS.items()
        for name, does in of_group.items()
    }
    return dispatch("clients.vault", DESCRIPTION, verbs, argv)


def _later(group: Callable[[], Mapping[str, Act]], name: str) -> Act:
    """A verb whose file is loaded when it is run."""

    def act(parser: Parser, argv: Sequence[str]) -> int:
        return group()[name](parser, argv)

    return act


def _keys() -> Mapping[str, Act]:
    from clients.vault.commands.keys import VERBS

    return VERBS


def _floor() -> Mapping[str, Act]:
    from clients.vault.commands.floor import VERBS

    return VERBS


def _images() -> Mapping[str, Act]:
    from clients.vault.commands.images import VERBS

    return VERBS


def _nodes() -> Mapping[str, Act]:
    from clients.vault.commands.nodes import VERBS

    return VERBS


def _simulations() -> Mapping[str, Act]:
    from clients.vault.commands.simulations import VERBS

    return VERBS


VERBS: Mapping[Callable[[], Mapping[str, Act]], Mapping[str, str]] = {
    _keys: {
        "new": "make a master key; one that is there stays",
        "backup": "seal all keys and salts in one file",
        "restore": "bring a vault back from its backup",
        "rotate": "make a new master key; the old one goes on decrypting what it encrypted",
        "retire": "destroy retired keys, or all, for ever",
    },
    _floor: {"floor": "show below what no config goes; make it where it is missing"},
    _images: {
        "encrypt": "encrypt images into a node folder",
        "decrypt": "decrypt what has derived keys to PNGs",
    },
    _nodes: {
        "verify": "compare a node folder with its hashes, its policy and, given the vault, its "
        "keys",
        "show": "say what keys and shards there are, no secret",
        "withdraw": "take a city out: its node refuses everything, what was handed over is removed",
    },
    _simulations: {
        "list": "list what simulations on this machine keep: runs, age, size",
        "clear": "remove what past simulations keep; vaults of owners stay",
    },
}
"""What the verbs do, by the file that they lie in."""
