"""The score of the weights that training starts from: without it no score tells what was taught."""

from flwr.serverapp import Grid

from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.progress.observer import RunObserver
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.arm_run import ArmRun
from strategies.rounds.gathering import Gathering
from strategies.rounds.round_log import Ask, RoundLog, longest_first


def score_start(
    run: ArmRun, folder: RunFolder, observer: RunObserver, arrays: Arrays, grid: Grid
) -> None:
    """Score the weights of round 0, as those of a later round are scored, and write the lines.

    All cities start from the same weights, those that train alone as well: each scores them once.
    A run that goes on does not repeat it, whatever came of it the first time.

    Args:
        run: The arm and seed.
        folder: The run, whose results are written.
        observer: Is told of it as of round 0.
        arrays: The weights.
        grid: The nodes.
    """
    mine = (run.request.arm, run.request.seed, 0)
    if any((line["arm"], line["seed"], line["round"]) == mine for line in folder.lines()):
        return
    log = RoundLog(run.request, 0, observer)
    gathering = Gathering(run, grid, log)
    observer.round_started(0)
    gathering.look()
    asks = [Ask(member, arrays) for member in run.roll.roster.members]
    messages = gathering.ask("evaluate", longest_first(asks, dict(run.num_examples)))
    gathering.score(grid.send_and_receive(messages, timeout=run.federation.round_timeout))
    log.check_scored(run.num_val)
    scores = log.scores()
    folder.append(log.finished())
    observer.round_finished(0, None, scores)
