"""The benchmark of secure aggregation goes through the protocol as it is."""

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "secure_aggregation.py"


def test_costs_of_three_nodes_one_of_them_lost():
    costs = runpy.run_path(str(SCRIPT))["measure"](3, 1, 64, 64)
    assert costs.node_gets > costs.node_sends > 1000
