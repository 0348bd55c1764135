"""Flower's simulation on a Ray cluster that is started early, once for all arms.

Ray takes 5 to 25 seconds to start, most of it waiting: it starts in the background while modules
load and the vaults encrypt. Telemetry of Flower and Ray is off. The cluster is this machine's: Ray
listens on the loopback alone, takes a fresh token for each run, and keeps its sockets and logs in a
folder that nobody else may enter. A cluster that RAY_ADDRESS names is not joined: what it would be
sent are messages of owners who did not ask for it.
"""

import logging
import os
import secrets
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from fl_ppseg.flower.scratch import make_scratch
from fl_ppseg.system.errors import RunError, is_out_of_memory

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

OBJECT_STORE_BYTES = 256 * 2**20
"""Messages pass through it one model at a time; Ray's own default is 30 % of the memory."""
ACTOR = "ray::ClientAppActor"
"""What Ray calls the processes in which Flower runs the clients."""
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
LOST_WORKER = (
    "a client process was killed, most likely for want of memory; choose fewer (--set "
    "num_workers=1), training.gradient_checkpointing=true, or a smaller training.batch_size, "
    "data.image_size or model"
)
LOOPBACK = "127.0.0.1"
PRELOADED = "RAY_preload_python_modules"
"""Ray's setting of the modules that its workers import when they start."""
NO_CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's switch between one machine (0) and a cluster, for which it would listen to others."""


class RayCluster:
    """A Ray cluster on this machine, starting in the background.

    Ray's processes end with the thread that started them (Linux's parent-death signal), so that
    thread lives as long as the cluster.
    """

    def __init__(self, num_workers: int, num_gpus: int = 0, preloaded: str = "") -> None:
        """Begin to start; `ready` waits for the end of it.

        Args:
            num_workers: Client processes at the same time, one CPU each.
            num_gpus: GPUs that the client processes share.
            preloaded: A module that the client processes import when they start, before there is
                a message for them.

        Raises:
            InputError: There is no usable folder for Ray's sockets.
        """
        self.num_workers = num_workers
        self.num_gpus = num_gpus
        self.most = num_workers
        """Most client processes at the same time; may be lowered until the run starts."""
        self._scratch = make_scratch()
        self._failure: BaseException | None = None
        self._up, self._done = threading.Event(), threading.Event()
        os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ[NO_CLUSTER] = "0"
        os.environ[PRELOADED] = preloaded
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self._thread = threading.Thread(target=self._start, name="ray-start", daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until the cluster is up.

        Raises:
            RunError: If Ray could not start.
        """
        self._up.wait()
        if self._failure is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise RunError(
                f"Ray did not start ({self._failure}); try again, or --engine in-process"
            )

    def interrupt(self) -> None:
        """Kill the actors during their work; callers that wait for them get an error at once.

        Ray's own agents stay, without which its node manager would end too, and say so. Flower's
        threads must have left Ray before it is shut down: Ray ends the whole process, with a line
        of its own, when a thread asks it for something later.
        """
        for worker in _workers():
            with suppress(psutil.NoSuchProcess):
                if " ".join(worker.cmdline()).startswith(ACTOR):
                    worker.kill()

    def stop(self) -> None:
        """End all processes of the cluster; workers, which Ray leaves to end later, too."""
        self._up.wait()
        import ray

        workers = _workers()
        ray.shutdown()
        self._done.set()
        self._thread.join()
        _, left = psutil.wait_procs(workers, timeout=1.0)
        for worker in left:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _start(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import ray

                ray.init(
                    address="local",
                    num_cpus=self.num_workers,
                    num_gpus=self.num_gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._scratch / "r"),
                    _node_ip_address=LOOPBACK,
                )
        except BaseException as error:
            self._failure = error
        self._up.set()
        self._done.wait()


def _workers() -> list[psutil.Process]:
    """The processes that Ray's node manager has started."""
    with suppress(psutil.Error):
        managers = [p for p in psutil.Process().children() if p.name() == "raylet"]
        return [worker for p in managers for worker in p.children(recursive=True)]
    return []


def names_lost_worker(text: str) -> bool:
    """Whether an error of Flower's names what Ray raises when a client's process is gone."""
    return "ray.exceptio" in text and "TaskError" not in text


def run_on_ray(
    server_app: "ServerApp", client_app: "ClientApp", num_nodes: int, cluster: RayCluster
) -> None:
    """Run a ServerApp to its end over Flower's simulated nodes.

    Raises:
        RunError: If Ray could not start or died; what the ServerApp raises is passed on.
    """
    from flwr.simulation import run_simulation

    from fl_ppseg.flower.ordered_delivery import ordered_delivery

    cluster.ready()
    backend: dict[str, Any] = {
        "client_resources": {
            "num_cpus": float(-(-cluster.num_workers // cluster.most)),  # Ray takes whole ones
            "num_gpus": cluster.num_gpus / cluster.num_workers,
        },
        "init_args": {"log_to_driver": False, "logging_level": logging.ERROR},
    }
    with warnings.catch_warnings(), ordered_delivery():
        warnings.simplefilter("ignore")
        try:
            run_simulation(server_app, client_app, num_nodes, backend_config=backend)
        except RuntimeError as error:
            cause = error.__cause__ or error
            if is_out_of_memory(cause) or names_lost_worker(str(type(cause))):
                raise RunError(LOST_WORKER) from error
            why = f"{type(cause).__name__}: {cause}"
            raise RunError(f"Flower's simulation ended ({why})") from error
