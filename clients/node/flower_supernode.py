"""Flower's SuperNode with limits: `python -m clients.node.flower_supernode OPTIONS -- FLOWER'S`."""

import sys
from collections.abc import Sequence

from clients.node.limits import Limits, add_limits
from fl_ppseg.flower.supernode import run_supernode
from fl_ppseg.system.command_line import Parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the SuperNode; the options after `--` are Flower's."""
    given = list(sys.argv[1:] if argv is None else argv)
    own, flower = given[: given.index("--")], given[given.index("--") + 1 :]
    parser = Parser(
        "clients.node.flower_supernode", "Flower's SuperNode with limits.", shows_defaults=True
    )
    parser.add_argument("--bundle-hash", metavar="SHA256", help="the only bundle to accept")
    add_limits(parser)
    options = parser.parse_args(own)
    Limits.of(options).apply_memory()
    run_supernode(flower, options.bundle_hash)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
