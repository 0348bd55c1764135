"""`python -m benchmarks.faults`."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.faults.table import FAULTS, rows

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description="Inject faults into real nodes; as root."
    )
    parser.add_argument("--clients", type=int, default=3, help="training clients (3)")
    parser.add_argument("--faults", default=",".join(FAULTS), metavar="A,B", help="which (all)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where, kept and used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(
            options.folder or Path(scratch), options.clients, options.faults.split(",")
        ):
            print(row, flush=True)
