"""What a person sees while a command runs: a live view, plain lines, or nothing."""

from fl_ppseg.progress.lines import say
from fl_ppseg.progress.live import LiveView, choose_observer
from fl_ppseg.progress.observer import (
    LogObserver,
    RunObserver,
    SilentObserver,
)
from fl_ppseg.progress.recorded import RecordedObserver, replay
from fl_ppseg.progress.steps import StepProgress, steps

__all__ = [
    "LiveView",
    "LogObserver",
    "RecordedObserver",
    "RunObserver",
    "SilentObserver",
    "StepProgress",
    "choose_observer",
    "replay",
    "say",
    "steps",
]
