"""Observers that the user of a command adds to its view, by name or import string.

They are this user's choice alone, an option of the command: an import string runs code, so no
config, run folder or message holds one.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Final, NamedTuple, Self

from fl_ppseg.progress.events import Event, Notice
from fl_ppseg.progress.observer import Observer
from fl_ppseg.system.errors import InputError, describe

log = logging.getLogger(__name__)

TENSORBOARD: Final = "tensorboard"


class PlugIn(NamedTuple):
    """An observer that will be made for a run."""

    name: str
    """As the user gave it."""
    make: Callable[[Path], Observer]
    """From the run folder to the observer."""


def add_observer(parser: argparse.ArgumentParser) -> None:
    """The option that names an observer; load what it names with `load_plug_ins`."""
    parser.add_argument(
        "--observer",
        action="append",
        default=[],
        metavar="NAME",
        help="log the rounds with it too: tensorboard, or package.module:Class; repeatable",
    )


def load_plug_ins(names: Iterable[str]) -> list[PlugIn]:
    """Import what the option names, each once.

    Args:
        names: `tensorboard`, or the import string of a class (or function) that makes an `Observer`
            of the run folder.

    Raises:
        InputError: One cannot be imported, or is not such a name.
    """
    return [_load(name) for name in dict.fromkeys(names)]


def _load(name: str) -> PlugIn:
    if name == TENSORBOARD:
        from fl_ppseg.progress.tensorboard import TensorBoardObserver

        return PlugIn(name, TensorBoardObserver)
    if ":" not in name:
        raise InputError(
            f"--observer {name}: expected {TENSORBOARD} or an import string package.module:Class"
        )
    try:
        make = resolve_name(name)
    except Exception as error:  # the module is the user's: anything can be wrong with it
        raise InputError(
            f"--observer {name}: cannot be imported ({type(error).__name__}: {describe(error)}); "
            "modules are looked for on PYTHONPATH"
        ) from error
    if not callable(make):
        raise InputError(f"--observer {name}: expected a class, got {type(make).__name__}")
    return PlugIn(name, make)


class Observers(Observer):
    """Tells the view and every plug-in; a plug-in that raises is left out from there on."""

    def __init__(self, view: Observer, plug_ins: Sequence[PlugIn], run: Path) -> None:
        self._view = view
        self._plug_ins = plug_ins
        self._run = run
        self._observers: dict[str, Observer] = {}

    def __enter__(self) -> Self:
        for name, make in self._plug_ins:
            try:
                self._observers[name] = self._made(make).__enter__()
            except Exception as error:
                self._leave_out(name, error)
        self._view.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            for name, observer in list(self._observers.items()):
                try:
                    observer.__exit__(kind, error, trace)
                except Exception as own:
                    self._leave_out(name, own)
        finally:
            self._view.__exit__(kind, error, trace)

    def on_event(self, event: Event) -> None:
        """Passes it on."""
        self._view.on_event(event)
        for name, observer in list(self._observers.items()):
            try:
                observer.on_event(event)
            except Exception as error:
                self._leave_out(name, error)

    def _made(self, make: Callable[[Path], Observer]) -> Observer:
        observer = make(self._run)
        if not isinstance(observer, Observer):
            raise TypeError(f"expected an Observer, got {type(observer).__name__}")
        return observer

    def _leave_out(self, name: str, error: Exception) -> None:
        self._observers.pop(name, None)
        line = f"observer {name} is left out: {type(error).__name__}: {describe(error)}"
        log.info("observer %s raised", name, exc_info=error)
        self._view.on_event(Notice(line))
