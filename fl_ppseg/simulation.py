"""One run on this machine, from images to report: prepare, federate, summarise, show."""

import json
import logging
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from PIL import Image
from rich.console import Console

from clients.client_app import app as client_app
from clients.policy import NODES_VARIABLE
from fl_ppseg.classes import load_class_table
from fl_ppseg.command_line import log_to
from fl_ppseg.config import Config, arms_of, described
from fl_ppseg.device import check_device
from fl_ppseg.engines.in_process import run_in_process
from fl_ppseg.engines.ray_cluster import LOST_WORKER, RayCluster, names_lost_worker, run_on_ray
from fl_ppseg.errors import RunError
from fl_ppseg.files import available_cpus, write_atomically
from fl_ppseg.key_trials import key_trials
from fl_ppseg.memory import PeakMemory
from fl_ppseg.memory_forecast import check_memory, forecast, machine_bytes
from fl_ppseg.panels import cipher_gallery, scene_panels
from fl_ppseg.preparation import NODES_LOG, Experiment, prepare
from fl_ppseg.progress import choose_observer, say, steps
from fl_ppseg.report.html import write_report
from fl_ppseg.report.tables import comparison_table, comparison_text
from fl_ppseg.run_folder import RunFolder, is_finished
from fl_ppseg.summary import KeyTrials, Summary, summarise
from strategies.server_app import Federation, build_server_app

logger = logging.getLogger(__name__)


def simulate(
    config: Config,
    out: Path,
    vault_dir: Path,
    cluster: RayCluster | None,
    *,
    prepare_only: bool,
    quiet: bool,
    show_table: bool = True,
) -> None:
    """Run an experiment to its report.

    Args:
        config: The experiment.
        out: Its run folder; one that holds this run already is gone on with.
        vault_dir: The owners' side: keys and encrypted shards.
        cluster: Ray, where the clients run on it; none: they run in this process.
        prepare_only: Stop before the first round and say how `flwr run` goes on.
        quiet: Print the final table only.
        show_table: Print the final table and where the report lies.

    Raises:
        InputError: For data or a config that do not fit.
        RunError: If the run could not be carried to its end.
    """
    check_device(config.device)
    _say_memory(config, quiet)
    started = time.monotonic() - _seconds_before(RunFolder(out))
    num_workers = config.num_workers or available_cpus()
    with PeakMemory() as memory:
        folder = RunFolder(out)
        log_to(folder.log if folder.config.exists() else None, quiet)
        with steps(sys.stderr, quiet) as progress:
            experiment = prepare(config, folder, vault_dir, num_workers, progress)
        log_to(folder.log)
        if not quiet:
            print(experiment.partition.description, file=sys.stderr)
            _say_size(experiment)
        if prepare_only:
            _print_flwr_run(experiment)
            return
        if not is_finished(config, folder):
            _federate(experiment, cluster, quiet)
        trials = _key_trials(experiment)
        summary = _summarise(experiment, time.monotonic() - started, memory.mb, trials)
    report = _report(experiment, summary)
    if show_table:
        console = Console()
        console.print(comparison_table(summary, described(config)))
        say(console, f"report: {report}")


def _say_memory(config: Config, quiet: bool) -> None:
    """Before the work: what it will need, where that is more than there is.

    Raises:
        InputError: The machine cannot carry it at all.
    """
    need = forecast(config, load_class_table(config.data.classes).num_classes)
    warning = check_memory(need, *machine_bytes())
    if warning is not None and not quiet:
        print(f"! {warning}", file=sys.stderr)


def _say_size(experiment: Experiment) -> None:
    """Where training sees much less of the images than there is, which nobody asked for."""
    scene = next(iter(experiment.dataset.split("train").values()))[0]
    with Image.open(scene.image_path) as picture:
        width, height = picture.size
    rows, columns = experiment.config.data.image_size
    if experiment.config.data.root is not None and height * width > 4 * rows * columns:
        print(
            f"images of {height}x{width} pixels are trained on at {rows}x{columns} "
            "(data.image_size)",
            file=sys.stderr,
        )


def _seconds_before(folder: RunFolder) -> float:
    """Wall seconds of the rounds that earlier starts of this run have finished."""
    return float(sum(line["seconds"] for line in folder.lines() if line["role"] == "round"))


def _federate(experiment: Experiment, cluster: RayCluster | None, quiet: bool) -> None:
    with choose_observer(quiet, sys.stderr) as observer:
        federation = Federation(experiment.folder, observer, experiment.num_nodes)
        server_app = build_server_app(federation)

        def interrupt(number: int, frame: FrameType | None) -> None:
            if cluster is None or federation.stop.is_set():  # in this process, or asked again
                raise KeyboardInterrupt
            federation.stop.set()  # before the workers end, whose errors would be told as news
            cluster.interrupt()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            if cluster is None:
                run_in_process(server_app, client_app, experiment.num_nodes)
            else:
                run_on_ray(server_app, client_app, experiment.num_nodes, cluster)
            if federation.stop.is_set():
                raise KeyboardInterrupt
        except RunError as error:
            if federation.stop.is_set():
                raise KeyboardInterrupt from None
            log = experiment.nodes / NODES_LOG
            if names_lost_worker(str(error)):
                raise RunError(f"{LOST_WORKER} ({error})") from error
            raise RunError(
                f"{error}; see {log if log.exists() else experiment.folder.log}"
            ) from error
        finally:
            federation.stop.set()
            signal.signal(signal.SIGINT, before)


def _key_trials(experiment: Experiment) -> KeyTrials | None:
    """Right, wrong and no key, where owners share one."""
    is_shared = any(arm.key_mode == "shared" for arm in arms_of(experiment.config).values())
    return key_trials(experiment) if is_shared else None


def _summarise(
    experiment: Experiment, seconds: float, peak_mb: float, trials: KeyTrials | None
) -> Summary:
    config = experiment.config
    return summarise(
        experiment.folder.lines(),
        config.arms,
        experiment.classes.names,
        config.federation.last_rounds,
        seconds,
        peak_mb,
        trials,
    )


def _report(experiment: Experiment, summary: Summary) -> Path:
    folder = experiment.folder
    write_atomically(folder.summary, json.dumps(summary, indent=1) + "\n")
    config = described(experiment.config)
    logger.info("result\n%s", comparison_text(summary, config))
    return write_report(
        folder.path,
        summary,
        folder.lines(),
        config,
        scene_panels(experiment),
        experiment.classes,
        cipher_gallery(experiment),
    )


def _print_flwr_run(experiment: Experiment) -> None:
    print(
        f"prepared {experiment.folder.path}; now, in the checkout:\n"
        f"  export {NODES_VARIABLE}={experiment.nodes}\n"
        f"  export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1\n"
        f'  flwr run . local --stream -c \'run-dir="{experiment.folder.path}" '
        f"num-nodes={experiment.num_nodes}' --federation-config "
        f"'num-supernodes={experiment.num_nodes} client-resources-num-cpus=1'\n"
        f"and for the table and the report\n"
        f"  python -m fl_ppseg.simulate --out {experiment.folder.path} "
        f"--vault-dir {experiment.nodes.parent.parent} --resume"
    )
