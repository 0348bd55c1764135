"""Client processes of Ray import what they need when they start, not at their first message."""

import subprocess
import sys
from pathlib import Path

import pytest

MODULE = "fl_ppseg.scenes.cities"
SCRIPT = f"""
import sys
from fl_ppseg.flower.ray_cluster import RayCluster

cluster = RayCluster(1, preloaded=sys.argv[1])
cluster.ready()
import ray

@ray.remote
class Actor:
    def has_it(self) -> bool:
        import sys
        return {MODULE!r} in sys.modules

print(ray.get(Actor.options(num_cpus=1.0).remote().has_it.remote()))
cluster.stop()
"""


@pytest.mark.federated
@pytest.mark.parametrize(("preloaded", "has_it"), [(MODULE, True), ("", False)])
def test_the_process_that_answers_has_the_module(preloaded: str, has_it: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, preloaded],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.split() == [str(has_it)]
