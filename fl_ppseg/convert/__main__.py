"""`python -m fl_ppseg.convert`."""

from fl_ppseg.convert.command import main
from fl_ppseg.system.command_line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
