"""`python -m strategies.coordinator`."""

from fl_ppseg.system.command_line import run
from strategies.coordinator.command import main

raise SystemExit(run(main))
