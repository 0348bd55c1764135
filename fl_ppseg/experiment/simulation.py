"""One run on this machine, from images to report: prepare, federate, summarise, show."""

import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from types import FrameType

from clients.client_app import app as client_app
from clients.node_log import LOG as NODE_LOG
from clients.policy.node_policy import NODES_VARIABLE
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.experiment.forecasts import memory_outlook, time_line
from fl_ppseg.experiment.fresh_views import views_made
from fl_ppseg.experiment.key_trials import key_trials
from fl_ppseg.experiment.panels import cipher_gallery, scene_panels
from fl_ppseg.experiment.preparation import Experiment, prepare
from fl_ppseg.experiment.profiler import Profiler
from fl_ppseg.experiment.val_counts import ValCounts
from fl_ppseg.experiment.val_images import count_val_images
from fl_ppseg.experiment.val_intervals import val_intervals
from fl_ppseg.federation.run_folder import RunFolder, is_finished
from fl_ppseg.federation.run_summary import RunSummary
from fl_ppseg.federation.summary import KeyTrials, summarise
from fl_ppseg.flower.in_process import run_in_process
from fl_ppseg.flower.ray_cluster import LOST_WORKER, RayCluster, names_lost_worker, run_on_ray
from fl_ppseg.progress.events import Notice
from fl_ppseg.progress.live import choose_view
from fl_ppseg.progress.plug_ins import Observers, PlugIn
from fl_ppseg.progress.steps import steps
from fl_ppseg.report.conclusion import Pictures, conclude, show
from fl_ppseg.system.command_line import log_to
from fl_ppseg.system.device import check_device
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.installation import cached_source, checkout
from fl_ppseg.system.memory import PeakMemory
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
    plug_ins: Sequence[PlugIn] = (),
    profiler: Profiler | None = None,
) -> None:
    """Run an experiment to its report.

    Args:
        config: The experiment.
        out: Its run folder; an existing folder of this run is resumed.
        vault_dir: The owners' side: keys and encrypted shards.
        cluster: Ray, to run the clients on; None: they run in this process.
        prepare_only: Stop before the first round and print how to continue with `flwr run`.
        quiet: Print the final table only.
        show_table: Print the final table and where the report lies.
        plug_ins: Observers of the rounds beside the view.
        profiler: Measures where the time goes; None: nobody does.

    Raises:
        InputError: The data or config do not fit.
        RunError: The run failed.
    """
    check_device(config.device)
    if prepare_only:
        toml_text(out)
        if config.data.fresh_views:
            raise InputError(
                "data.fresh_views: `flwr run` starts no process that makes views; leave out "
                "--prepare"
            )
    _forecast(config, cluster, quiet, is_new=not RunFolder(out).config.exists())
    started = time.monotonic() - _seconds_before(RunFolder(out))
    num_workers = config.num_workers or available_cpus()
    with PeakMemory() as memory:
        folder = RunFolder(out)
        log_to(folder.log if folder.config.exists() else None, quiet)
        with steps(sys.stderr, quiet) as progress:
            experiment = prepare(config, folder, vault_dir, num_workers, progress, _tell(quiet))
        log_to(folder.log)
        _log_data(experiment)
        if not quiet:
            for line in (*experiment.about.notes, experiment.partition.description):
                print(line, file=sys.stderr)
        if prepare_only:
            _print_flwr_run(experiment)
            return
        if not is_finished(config, folder):
            measures = [] if profiler is None else [PlugIn("profile", lambda _: profiler)]
            _federate(experiment, cluster, quiet, [*plug_ins, *measures])
        trials = _key_trials(experiment)
        counts = _val_counts(experiment, quiet)
        summary = _summarise(experiment, time.monotonic() - started, memory.mb, trials, counts)
    if profiler is not None:
        profiler.conclude()  # the report shows it
    pictures = partial(_pictures, experiment)
    report = conclude(config, folder, summary, experiment.classes, pictures)
    profile = None if profiler is None else profiler.conclude()
    if show_table:
        show(config, summary, report, experiment.about.notes, profile)


def _tell(quiet: bool) -> Callable[[str], None]:
    """Print what the images hold as soon as it is known."""
    return lambda text: None if quiet else print(text, file=sys.stderr, flush=True)


def _log_data(experiment: Experiment) -> None:
    """Log the notes on images that were printed."""
    if experiment.about.table:
        logger.info("images and label maps\n%s", experiment.about.table)
    for note in experiment.about.notes:
        logger.info("%s", note)


def _forecast(config: Config, cluster: RayCluster | None, quiet: bool, *, is_new: bool) -> None:
    """Say what the run will take, and let no more clients train at a time than memory allows.

    Raises:
        InputError: It needs more memory than the machine has.
    """
    outlook = memory_outlook(config)
    fitting = outlook.fit.num_processes
    if cluster is not None and fitting < min(cluster.num_workers, config.clients):
        cluster.most = min(cluster.most, fitting)  # by memory; fewer clients need no limit
    if quiet:
        return
    if outlook.fit.note is not None:
        print(f"! {outlook.fit.note}", file=sys.stderr)
    if is_new and config.device == "cpu":
        print(outlook.memory, file=sys.stderr)
        print(time_line(config, outlook.fit.num_processes), file=sys.stderr, flush=True)


def _seconds_before(folder: RunFolder) -> float:
    """Wall seconds of the rounds that earlier starts of this run have finished."""
    return float(sum(line["seconds"] for line in folder.lines() if line["role"] == "round"))


def _federate(
    experiment: Experiment,
    cluster: RayCluster | None,
    quiet: bool,
    plug_ins: Sequence[PlugIn],
) -> None:
    with (
        Observers(choose_view(quiet, sys.stderr), plug_ins, experiment.folder.path) as observer,
        views_made(experiment.views, lambda text: observer.on_event(Notice(text))) as maker,
    ):
        federation = Federation(experiment.folder, observer, experiment.num_nodes)
        at_end = (lambda: None) if maker is None else maker.close
        server_app = build_server_app(federation, at_end)

        def interrupt(number: int, frame: FrameType | None) -> None:
            if cluster is None or federation.stop.is_set():  # in this process, or interrupted again
                raise KeyboardInterrupt
            federation.stop.set()  # before the workers end, whose errors would be logged
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
            if maker is not None and maker.failure is not None:
                raise RunError(maker.failure) from error
            if names_lost_worker(str(error)):
                raise RunError(f"{LOST_WORKER} ({error})") from error
            logs = sorted(experiment.nodes.glob(f"state/*/{NODE_LOG}"))
            raise RunError(f"{error}; see {logs[0] if logs else experiment.folder.log}") from error
        finally:
            federation.stop.set()
            signal.signal(signal.SIGINT, before)


def _key_trials(experiment: Experiment) -> KeyTrials | None:
    """Scores with the right, a wrong and no key, of arms with a shared key."""
    is_shared = any(arm.key_mode == "shared" for arm in arms_of(experiment.config).values())
    return key_trials(experiment) if is_shared else None


def _val_counts(experiment: Experiment, quiet: bool) -> ValCounts:
    """Counts of each val image, for intervals over images."""
    with steps(sys.stderr, quiet) as progress:
        return count_val_images(experiment, progress)


def _summarise(
    experiment: Experiment,
    seconds: float,
    peak_mb: float,
    trials: KeyTrials | None,
    counts: ValCounts,
) -> RunSummary:
    config = experiment.config
    return summarise(
        experiment.folder.lines(),
        config.arms,
        experiment.classes.names,
        config.federation.last_rounds,
        seconds,
        peak_mb,
        trials,
        experiment.no_image,
        val_intervals(counts, config.arms, config.seeds),
        experiment.about.notes,
    )


def _pictures(experiment: Experiment) -> Pictures:
    return Pictures(scene_panels(experiment), cipher_gallery(experiment))


def _print_flwr_run(experiment: Experiment) -> None:
    """Print commands to copy; every path is quoted for the shell."""
    path, num_nodes = experiment.folder.path.absolute(), experiment.num_nodes
    run_config = quote(f"run-dir={toml_text(path)} num-nodes={num_nodes}")
    print(
        f"prepared {path}; now:\n"
        f"  cd {quote(str(checkout() or cached_source()))}\n"
        f"  export {NODES_VARIABLE}={quote(str(experiment.nodes.absolute()))}\n"
        f"  export FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1\n"
        f"  flwr run . local --stream -c {run_config} --federation-config "
        f"'num-supernodes={num_nodes} client-resources-num-cpus=1'\n"
        f"and for the table and the report\n"
        f"  python -m fl_ppseg.simulate --out {quote(str(path))} "
        f"--vault-dir {quote(str(experiment.vault_dir.absolute()))} --resume"
    )


def toml_text(path: Path) -> str:
    """Quote a path as TOML for Flower's --run-config, with a quotation mark not in the path.

    Raises:
        InputError: It contains both kinds of quotation marks, or control characters.
    """
    text = str(path)
    if not text.isprintable() or ('"' in text and "'" in text):
        raise InputError(
            f"{text!r}: `flwr run` takes no path with control characters or both kinds of "
            "quotation marks; choose another --out"
        )
    if '"' in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\") + '"'
