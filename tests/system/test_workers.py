"""Tasks in several processes: all done, or all ended and cleaned up behind."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import CHECKOUT as ROOT

from fl_ppseg.system import workers
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.workers import work_at_once

SCRIPT = """
import sys, time
from pathlib import Path
from fl_ppseg.system.command_line import run
from fl_ppseg.system.files import replacing_folder
from fl_ppseg.system.workers import work_at_once

def work(name):
    with replacing_folder(Path(sys.argv[1]) / name):
        time.sleep(100)

def main(argv):
    for _ in work_at_once(work, ["a", "b", "c"], 2, "sleeping"):
        pass
    return 0

if __name__ == "__main__":
    raise SystemExit(run(main))
"""


def test_every_task_is_done_once() -> None:
    found = dict(work_at_once(math.factorial, [3, 0, 5, 4], 2, "counting"))
    assert found == {0: 6, 1: 1, 2: 120, 3: 24}
    assert dict(work_at_once(math.factorial, [], 2, "counting")) == {}


def test_a_killed_worker_is_said() -> None:
    with pytest.raises(RunError, match="killed while leaving; free some memory"):
        list(work_at_once(os._exit, [1], 1, "leaving"))


def test_a_failed_task_ends_the_others() -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match="negative"):
        list(work_at_once(time.sleep, [100, -1], 2, "sleeping"))
    assert time.monotonic() - begin < 30


def test_a_worker_that_misses_the_request_to_stop_is_ended_by_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed task ends the others, one of which has lost the exception that was to end it."""
    monkeypatch.setattr(workers, "CLEANING_UP", 2.0)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="fails"):
        list(work_at_once(fail_or_stay, [True, False], 2, "waiting"))
    assert time.monotonic() - begin < 60
    assert not multiprocessing.active_children()


def fail_or_stay(is_deaf: bool) -> None:
    """A task that stays whatever asks it to end, or one that fails once the other has begun."""
    if not is_deaf:
        time.sleep(3)
        raise ValueError("it fails")
    while True:
        try:
            time.sleep(600)
        except SystemExit:
            continue


def test_the_error_of_a_task_is_its_own(tmp_path: Path) -> None:
    from fl_ppseg.data.image_files import read_image

    with pytest.raises(InputError, match="unreadable image"):
        list(work_at_once(read_image, [tmp_path / "none.png"], 1, "reading"))


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "one process"])
def test_ctrl_c_ends_long_tasks_in_one_line(tmp_path: Path, whole_group: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    place = tmp_path / "place"
    place.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(place)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 25
    while len(list(place.iterdir())) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(list(place.iterdir())) == 2
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert error == "error: interrupted; finished work is kept, half-done work removed\n"
    assert list(place.iterdir()) == []


STRIKING = """
import os, signal, time
from fl_ppseg.system import workers
from fl_ppseg.system.command_line import run

class Pool(workers.ProcessPoolExecutor):
    def submit(self, *call):
        found = super().submit(*call)
        os.killpg(0, signal.SIGINT)
        time.sleep(0.3)
        return found

def main(argv):
    for _ in workers.work_at_once(time.sleep, [100, 100], 2, "sleeping"):
        pass
    return 0

if __name__ == "__main__":
    workers.ProcessPoolExecutor = Pool
    raise SystemExit(run(main))
"""


def test_ctrl_c_is_no_news_to_a_worker_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(STRIKING)
    process = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr == "error: interrupted; finished work is kept, half-done work removed\n"
