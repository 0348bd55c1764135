"""`python -m fl_ppseg.predict`."""

from fl_ppseg.predict.command import main
from fl_ppseg.system.command_line import run

if __name__ == "__main__":
    raise SystemExit(run(main))
