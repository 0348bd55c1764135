"""What carries messages between one ServerApp and many ClientApps on one machine.

Both engines run the same two apps and give the same weights: `ray` is Flower's simulation on Ray, a
process for each core; `in-process` calls the ClientApp in this process, for tests and a single GPU.
"""

from fl_ppseg.engines.in_process import InProcessGrid, run_in_process
from fl_ppseg.engines.ray_cluster import RayCluster, run_on_ray

__all__ = ["InProcessGrid", "RayCluster", "run_in_process", "run_on_ray"]
