"""`python -m fl_ppseg.audit`."""

from fl_ppseg.audit.command import main
from fl_ppseg.system.command_line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
