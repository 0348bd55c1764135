"""Where the checkout lies, and in it what tests read."""

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = CHECKOUT / "tests"
SUPPORT = TESTS / "support"
VECTORS = TESTS / "vectors"
"""Known answers, and what every parser must refuse."""
PYTHONPATH = os.pathsep.join((str(CHECKOUT), str(SUPPORT)))
"""By which a process of its own finds the packages and what supports the tests."""
