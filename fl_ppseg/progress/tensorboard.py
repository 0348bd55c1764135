"""Losses and scores of a run for TensorBoard: `tensorboard --logdir RUN/tensorboard`."""

from pathlib import Path

from fl_ppseg.config import run_layout as layout
from fl_ppseg.progress.events import ArmFinished, ArmResumed, ArmStarted, Event, RoundFinished
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.errors import InputError

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise InputError(
        "--observer tensorboard: the package tensorboard is not installed; run "
        "pip install 'fl-ppseg[tensorboard]'"
    ) from error


class TensorBoardObserver(Observer):
    """Event files by arm and seed, so that TensorBoard draws arms into one plot.

    A run that is resumed writes its earlier rounds anew and has TensorBoard drop those of before,
    so that each round stands there once, also where an earlier start had no such observer.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / layout.TENSORBOARD
        self._writers: dict[tuple[str, int], SummaryWriter] = {}

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def on_event(self, event: Event) -> None:
        """Writes the scalars of finished rounds."""
        match event:
            case ArmResumed():
                self._open(event.arm, event.seed)
                for done in event.rounds:
                    self._write(done)
            case ArmStarted() if (event.arm, event.seed) not in self._writers:
                self._open(event.arm, event.seed)
            case RoundFinished():
                self._write(event)
            case ArmFinished():
                self._writers.pop((event.arm, event.seed)).close()

    def _open(self, arm: str, seed: int) -> None:
        folder = layout.seed_folder(self._folder, arm, seed)
        self._writers[arm, seed] = SummaryWriter(str(folder), purge_step=0)

    def _write(self, done: RoundFinished) -> None:
        writer = self._writers[done.arm, done.seed]
        for name, value in done.scalars().items():
            writer.add_scalar(name, value, done.round)
        writer.flush()
