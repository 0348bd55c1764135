"""Observers of the user's own: found by name, told everything, and never a reason to fail."""

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from event_files import curves

from fl_ppseg.progress.events import (
    ArmFinished,
    ArmResumed,
    ArmStarted,
    Event,
    Notice,
    RoundFinished,
    RoundScores,
    RoundStarted,
    RunFinished,
    RunStarted,
)
from fl_ppseg.progress.observer import Observer
from fl_ppseg.progress.plug_ins import Observers, PlugIn, load_plug_ins
from fl_ppseg.system.errors import InputError

ARM = ("plain", 0)


class Notes(Observer):
    """Notes all that it is told, and where."""

    def __init__(self, run: Path | None = None) -> None:
        self.run, self.events, self.is_open = run, list[Event](), False

    def __enter__(self) -> "Notes":
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def raising(*where: str) -> Callable[[Path], Observer]:
    """Makes an observer that raises in some of its methods."""

    def fail(*_: object) -> None:
        raise RuntimeError("no\nnetwork")

    if "__init__" in where:
        return lambda run: fail()  # type: ignore[return-value]
    kind = type("Raising", (Notes,), dict.fromkeys(where, fail))
    return lambda run: kind(run)  # type: ignore[no-any-return]


@pytest.mark.parametrize("where", ["__init__", "__enter__", "on_event", "__exit__"])
def test_an_observer_that_raises_costs_one_line_and_the_others_go_on(
    where: str, tmp_path: Path
) -> None:
    view, good = Notes(), Notes()
    plug_ins = [PlugIn("bad", raising(where)), PlugIn("good", lambda _: good)]
    events = [RunStarted(("plain",), (0,), 1, 1, 1), RunFinished()]
    with Observers(view, plug_ins, tmp_path) as observers:
        for event in events:
            observers.on_event(event)
    assert good.events == events
    assert not good.is_open and not view.is_open
    notices = [event.text for event in view.events if isinstance(event, Notice)]
    assert notices == ["observer bad is left out: RuntimeError: no network"]
    assert [event for event in view.events if not isinstance(event, Notice)] == events


def test_an_interrupt_passes_and_closes_all(tmp_path: Path) -> None:
    class Interrupted(Notes):
        def on_event(self, event: Event) -> None:
            raise KeyboardInterrupt

    view, own = Notes(), Interrupted()
    with (
        pytest.raises(KeyboardInterrupt),
        Observers(view, [PlugIn("own", lambda _: own)], tmp_path) as observers,
    ):
        assert own.is_open and view.is_open
        observers.on_event(RunFinished())
    assert not own.is_open and not view.is_open


def test_what_is_no_observer_is_left_out(tmp_path: Path) -> None:
    view = Notes()
    with Observers(view, [PlugIn("own", str)], tmp_path):  # type: ignore[arg-type]
        pass
    assert view.events == [
        Notice("observer own is left out: TypeError: expected an Observer, got str")
    ]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("own_observers")
    module.Own = Notes  # type: ignore[attr-defined]
    module.NUMBER = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_observers", module)
    return module


def test_an_import_string_names_a_class_that_gets_the_run_folder(
    own: ModuleType, tmp_path: Path
) -> None:
    (plug_in,) = load_plug_ins(["own_observers:Own", "own_observers:Own"])
    made = plug_in.make(tmp_path)
    assert isinstance(made, Notes) and made.run == tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wandb", "expected tensorboard or an import string package.module:Class"),
        ("own_observers:Absent", "cannot be imported (AttributeError: "),
        ("own_observers:NUMBER", "expected a class, got int"),
        ("not_there.at_all:Own", "cannot be imported (ModuleNotFoundError: "),
        ("../own:Own", "cannot be imported (ValueError: "),
    ],
)
def test_what_cannot_be_imported_is_refused_with_one_line(
    own: ModuleType, name: str, said: str
) -> None:
    with pytest.raises(InputError) as refused:
        load_plug_ins([name])
    assert str(refused.value).startswith(f"--observer {name}: {said}")
    assert "\n" not in str(refused.value)


def test_without_its_package_tensorboard_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fl_ppseg.progress.tensorboard", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'fl-ppseg\[tensorboard\]'"):
        load_plug_ins(["tensorboard"])


def test_scalars_are_the_finite_numbers_by_name() -> None:
    scores = RoundScores(aAcc=80.0, mIoU=math.nan, mAcc=50.0)
    done = RoundFinished(*ARM, 3, 0.5, scores)
    assert done.scalars() == {"train/loss": 0.5, "val/aAcc": 80.0, "val/mAcc": 50.0}
    assert RoundFinished(*ARM, 0, None, None).scalars() == {}


def finished(number: int, shift: float = 0.0) -> RoundFinished:
    loss = None if number == 0 else 1.0 / number
    return RoundFinished(*ARM, number, loss, RoundScores(80.0, 10.0 * number + shift, 50.0))


def start(rounds: Sequence[RoundFinished], before: Sequence[RoundFinished] = ()) -> Iterator[Event]:
    """The events of one start of a run that ends without warning."""
    yield RunStarted(("plain",), (0,), 4, 2, 1)
    if before:
        yield ArmResumed(*ARM, before[-1].round, tuple(before))
    yield ArmStarted(*ARM)
    for done in rounds:
        yield RoundStarted(*ARM, done.round)
        yield done


def watch(run: Path, *starts: Iterator[Event]) -> None:
    """One process that is told of some starts."""
    pytest.importorskip("tensorboard")
    view = Notes()
    with Observers(view, load_plug_ins(["tensorboard"]), run) as observers:
        for events in starts:
            for event in events:
                observers.on_event(event)
    assert not [event for event in view.events if isinstance(event, Notice)]


WHOLE = [finished(number) for number in range(5)]
SHOWN = {
    "train/loss": [(number, round(1.0 / number, 4)) for number in range(1, 5)],
    "val/aAcc": [(number, 80.0) for number in range(5)],
    "val/mIoU": [(number, 10.0 * number) for number in range(5)],
    "val/mAcc": [(number, 50.0) for number in range(5)],
}


def test_tensorboard_draws_loss_and_scores_by_round(tmp_path: Path) -> None:
    watch(tmp_path, iter([*start(WHOLE), ArmFinished(*ARM), RunFinished()]))
    assert curves(tmp_path, "plain") == SHOWN


def test_a_resumed_run_has_every_round_once(tmp_path: Path) -> None:
    """Rounds 3 and 4 of the first start were never finished on disk: other values replace them."""
    lost = [finished(number, shift=7.0) for number in (3, 4)]
    watch(tmp_path, start([*WHOLE[:3], *lost]))
    watch(tmp_path, start(WHOLE[3:], before=WHOLE[:3]))
    assert curves(tmp_path, "plain") == SHOWN


def test_rounds_before_the_observer_was_asked_for_are_drawn_too(tmp_path: Path) -> None:
    watch(tmp_path, start(WHOLE[3:], before=WHOLE[:3]))
    assert curves(tmp_path, "plain") == SHOWN


def test_a_follower_of_several_starts_draws_the_last(tmp_path: Path) -> None:
    """The coordinator's command reads them all from one file."""
    lost = [finished(number, shift=7.0) for number in range(3)]
    watch(tmp_path, start(lost), start(WHOLE[:3]), start(WHOLE[3:], before=WHOLE[:3]))
    assert curves(tmp_path, "plain") == SHOWN


class Recording(ModuleType):
    """A module whose calls, and those of what they return, are noted."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*values: Any, **options: Any) -> "Recording":
            self.calls.append((name, values, options))
            return self

        return note


SCALARS = {"train/loss": 0.5, "val/aAcc": 80.0, "val/mIoU": 20.0, "val/mAcc": 50.0}
CALLS = {
    "wandb": [
        (
            "init",
            (),
            {"project": "fl_ppseg", "id": "mine-plain-0", "group": "mine", "resume": "allow"},
        ),
        ("log", (SCALARS,), {"step": 2}),
        ("finish", (), {}),
    ],
    "mlflow": [
        ("set_experiment", ("mine",), {}),
        ("start_run", (), {"run_name": "plain seed 0"}),
        ("log_metrics", (SCALARS,), {"step": 2}),
        ("end_run", (), {}),
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_shown_classes_make_these_calls(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of docs/api.md, of which the first line of imports is of another package."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    (shown,) = re.findall(rf"```python\n([^`]*\nimport {name}\n[^`]*)```", page)
    module, recording = ModuleType("my_observers"), Recording(name)
    monkeypatch.setitem(sys.modules, name, recording)
    monkeypatch.setitem(sys.modules, "my_observers", module)
    exec(shown, vars(module))
    (kind,) = (k for k, v in vars(module).items() if v in Observer.__subclasses__())
    with Observers(Notes(), load_plug_ins([f"my_observers:{kind}"]), tmp_path / "mine") as all_:
        for event in (*start([finished(2)]), ArmFinished(*ARM)):
            all_.on_event(event)
    assert recording.calls == CALLS[name]
