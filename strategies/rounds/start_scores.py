"""The scores of the initial weights: what training added is told by comparing with them."""

from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.events import RoundStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.exchange import Exchange
from strategies.rounds.round_log import RoundLog
from strategies.rounds.tasks import Task, longest_first


def score_start(
    run: ArmRun,
    folder: RunFolder,
    observer: Observer,
    arrays: Arrays,
    record: ArrayRecord,
    sent_bytes: int,
    grid: Grid,
) -> None:
    """Score the weights of round 0, as those of a later round are scored, and write the lines.

    All clients start from the same weights, those that train alone as well: each scores them once.
    A resumed run does not repeat it, whatever its outcome.

    Args:
        run: The arm and seed.
        folder: The run, whose results are written.
        observer: Is told of it as round 0.
        arrays: The weights.
        record: The same as they travel.
        sent_bytes: Of them as they travel.
        grid: The nodes.
    """
    mine = (run.request.arm, run.request.seed, 0)
    if any((line["arm"], line["seed"], line["round"]) == mine for line in folder.lines()):
        return
    log = RoundLog(run.request, 0, observer)
    exchange = Exchange(run, grid, log)
    observer.on_event(RoundStarted(*mine))
    exchange.poll_nodes()
    tasks = [
        Task(member, arrays, sent_bytes=sent_bytes) for member in run.discovery.registry.members
    ]
    ordered = longest_first(tasks, dict(run.num_examples))
    messages = exchange.open_phase("evaluate", ordered, record)
    exchange.collect_scores(grid.send_and_receive(messages, timeout=run.federation.round_timeout))
    log.reject_unscored(run.num_val)
    folder.append(log.result_lines())
    observer.on_event(log.finished())
