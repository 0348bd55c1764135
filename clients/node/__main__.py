"""`python -m clients.node`."""

from clients.node.command import main
from fl_ppseg.system.command_line import run

raise SystemExit(run(main))
