"""`python -m clients.vault`."""

from clients.vault.command import main
from fl_ppseg.system.command_line import run

raise SystemExit(run(main))
