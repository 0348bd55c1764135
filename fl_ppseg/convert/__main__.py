"""`python -m fl_ppseg.convert`."""

from fl_ppseg.command_line import run
from fl_ppseg.convert.command import main

if __name__ == "__main__":
    raise SystemExit(run(main))
