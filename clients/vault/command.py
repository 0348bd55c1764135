"""`python -m clients.vault VERB`: which verbs there are; their options lie in `commands`."""

from collections.abc import Sequence

from clients.vault.commands import floor, images, keys, nodes, simulations
from fl_ppseg.command_line import log_to
from fl_ppseg.verbs import dispatch

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
    verbs = keys.VERBS | floor.VERBS | images.VERBS | nodes.VERBS | simulations.VERBS
    return dispatch("clients.vault", DESCRIPTION, verbs, argv)
