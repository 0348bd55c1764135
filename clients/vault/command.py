"""`python -m clients.vault VERB`: the list of verbs; their options are defined in `commands`.

A verb loads only its own module of `commands`, and listing the verbs loads none.
"""

from collections.abc import Callable, Mapping, Sequence

from fl_ppseg.system.command_line import Parser, log_to
from fl_ppseg.system.verbs import Act, Verb, dispatch

DESCRIPTION = """\
For the owner of the images, on a machine of its own: make a key, encrypt images for a training
node, and manage both. Keys never leave the vault; the node gets a folder that holds none.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status.

    Raises:
        InputError: For options, folders or images that do not fit.
        RunError: If the disk is full, or a node folder fails verification.
    """
    log_to(None)
    verbs = {
        name: Verb(does, _later(group, name))
        for group, of_group in VERBS.items()
        for name, does in of_group.items()
    }
    return dispatch("clients.vault", DESCRIPTION, verbs, argv)


def _later(group: Callable[[], Mapping[str, Act]], name: str) -> Act:
    """A verb whose module is loaded when it is run."""

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
        "new": "make a master key; an existing one is never replaced",
        "cohort": "print your line for secure aggregation's file of cohort keys",
        "backup": "write all keys and salts to one file, sealed with a passphrase",
        "restore": "restore a vault from its backup",
        "rotate": "make a new master key; the old one still decrypts what it encrypted",
        "retire": "permanently destroy the retired keys, or all keys",
    },
    _floor: {"floor": "show the least protection that you accept; write it if it is missing"},
    _images: {
        "encrypt": "encrypt images into a node folder",
        "follow": "make the fresh views of each round ahead of the node (data.fresh_views)",
        "decrypt": "decrypt images that have derived keys to PNG files",
    },
    _nodes: {
        "verify": "check a node folder against its hashes, its policy and, with --vault, its keys",
        "show": "list keys and shards; shows no secret",
        "withdraw": "leave the federation: the node refuses every request, its data is removed",
    },
    _simulations: {
        "list": "list what simulations store on this machine: runs, age, size",
        "clear": "remove what past simulations stored; vaults of owners are kept",
    },
}
"""What each verb does, grouped by the module that defines it."""
