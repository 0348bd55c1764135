"""`python -m clients.node`."""

from clients.node.command import main
from fl_ppseg.command_line import run

raise SystemExit(run(main))
