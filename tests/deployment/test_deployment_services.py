"""Programs are started again when they die, explained once, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fl_ppseg.deployment import logs, services
from fl_ppseg.deployment.accounts import account
from fl_ppseg.deployment.services import Service, Supervisor, environment, program
from fl_ppseg.system.errors import InputError

PARENT_OF_ONE = "import subprocess, sys; subprocess.run(['sleep', '60'])"


def service(folder: Path, code: str, **changes: object) -> Service:
    made = Service(
        name="it",
        command=[sys.executable, "-c", code],
        log=folder / "logs" / "it.log",
        environment=dict(os.environ),
        folder=folder,
        restart_seconds=0.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def until(found: Callable[[], object], supervisor: Supervisor, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        supervisor.poll()
        time.sleep(0.05)


def test_who_dies_is_started_again_and_explained_once(tmp_path: Path) -> None:
    said: list[str] = []
    counting = "open('starts', 'a').write('x'); print('because of rain'); raise SystemExit(3)"
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, counting))
        starts = tmp_path / "starts"
        until(lambda: starts.exists() and len(starts.read_text()) >= 3, supervisor)
    assert said == [
        f"it ended (status 3); restarting it; its log is {tmp_path / 'logs' / 'it.log'}"
    ]


def test_the_reason_is_read_from_what_this_start_has_written(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "logs").mkdir(0o700)
    (tmp_path / "logs" / "it.log").write_text("rain of the day before\n")

    def explain(text: str) -> str | None:
        return f"said: {text.strip()}"

    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, "print('because of snow')", explain=explain))
        until(lambda: said, supervisor)
    assert said == ["said: because of snow"]


def test_news_are_told_while_it_runs(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import time; print('node 7 is here', flush=True); time.sleep(60)"
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, code, news=("is here", "connected")))
        until(lambda: said, supervisor)
        supervisor.poll()
    assert said == ["connected"]


def test_stopping_ends_what_it_has_started_itself(tmp_path: Path) -> None:
    with Supervisor(print) as supervisor:
        supervisor.start(service(tmp_path, PARENT_OF_ONE))
        us = psutil.Process()
        until(lambda: any(p.name() == "sleep" for p in us.children(recursive=True)), supervisor)
        tree = us.children(recursive=True)
    _, alive = psutil.wait_procs(tree, timeout=5)
    assert len(tree) == 2
    assert not alive


def test_who_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "STOP_SECONDS", 0.2)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True)"
    said: list[str] = []
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, f"{deaf}; time.sleep(60)", news=("up", "up")))
        until(lambda: said, supervisor)
    assert not psutil.Process().children()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends children with their parent")
def test_a_killed_supervisor_leaves_nobody_behind(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
sys.path[:0] = {sys.path!r}
from pathlib import Path
from fl_ppseg.deployment.services import Service, Supervisor
with Supervisor(print) as supervisor:
    supervisor.start(Service("it", ["sleep", "60"], Path("it.log"), dict(os.environ), Path(".")))
    print("started", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    children = psutil.Process(process.pid).children()
    assert [p.name() for p in children] == ["sleep"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


def test_a_log_stays_small_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 1000)
    endless = "import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.01)"
    log = tmp_path / "logs" / "it.log"
    with Supervisor(print) as supervisor:
        supervisor.start(service(tmp_path, endless))
        until(log.with_name("it.log.1").exists, supervisor)
        until(lambda: 0 < log.stat().st_size < 1000, supervisor)
    assert b"\0" not in log.read_bytes()
    assert log.with_name("it.log.1").stat().st_size <= 1000


def test_users_and_programs_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match="user 'nobody-of-this-name' does not exist"):
        account("nobody-of-this-name")
    with pytest.raises(InputError, match="flower-nonsense is not installed"):
        program("flower-nonsense")


def test_programs_get_no_token_of_who_starts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of root's environment only what Python, PyTorch and TLS need goes on."""
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "HTTPS_PROXY", "LD_PRELOAD", "LANGUAGES"):
        monkeypatch.setenv(name, "do-not-tell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    shown = tmp_path / "shown"
    command = ["sh", "-c", "env > shown; exec sleep 60"]
    made = service(tmp_path, "", command=command, environment=environment(tmp_path / "home"))
    with Supervisor(print) as supervisor:
        supervisor.start(made)
        until(lambda: shown.exists() and "OMP_NUM_THREADS=3\n" in shown.read_text(), supervisor)
    assert "do-not-tell" not in shown.read_text()
    names = {line.partition("=")[0] for line in shown.read_text().splitlines()}
    assert names >= {"PATH", "HOME", "FLWR_HOME", "PYTHONUNBUFFERED"}


def test_programs_leave_no_core_file_and_gain_no_rights(tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    show = "ulimit -c > shown; grep NoNewPrivs /proc/self/status >> shown; exec sleep 60"
    with Supervisor(print) as supervisor:
        supervisor.start(service(tmp_path, "", command=["sh", "-c", show]))
        until(lambda: shown.exists() and shown.read_text().count("\n") == 2, supervisor)
    assert shown.read_text().split() == ["0", "NoNewPrivs:", "1"]


def test_foreign_text_is_cleaned_before_it_is_kept_and_before_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    code = r"""print('\x1b]0;title\x07error: \x1b[31mof\r\u202e the wire' + 'x' * 9999)"""
    log = tmp_path / "logs" / "it.log"
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, code, explain=lambda text: f"it says {text}"))
        until(lambda: said, supervisor)
    assert said[0].startswith(r"it says error: of\r\u202e the wirexxx")
    assert len(said[0]) < 2100
    assert log.read_text().splitlines()[0] == said[0].removeprefix("it says ")


def test_who_writes_without_end_is_held_up_and_stopped_all_the_same(tmp_path: Path) -> None:
    flood = "import os\nwhile True: os.write(1, b'x' * 65536)"
    log = tmp_path / "logs" / "it.log"
    with Supervisor(print) as supervisor:
        supervisor.start(service(tmp_path, flood))
        until(lambda: log.exists() and log.stat().st_size, supervisor)
        begin = time.monotonic()
        supervisor.stop()
        assert time.monotonic() - begin < 8  # not killed after the ten seconds of grace
    assert log.stat().st_size < 10_000  # one line, cut


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts programs as another user")
def test_a_service_runs_as_the_user_that_it_is_given(tmp_path: Path) -> None:
    """And its output goes through a pipe into a log that this user could not write."""
    user, log = account("nobody"), tmp_path / "logs" / "it.log"
    command = ["sh", "-c", "echo $(id -u) $(id -g) $(id -G); exec sleep 60"]
    with Supervisor(print) as supervisor:
        supervisor.start(service(Path("/"), "", command=command, account=user, log=log))
        until(lambda: log.exists() and log.read_text(), supervisor)
    assert log.read_text().split() == [str(user.uid), str(user.gid), str(user.gid)]
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (0, 0o600)


def test_who_goes_astray_is_ended_and_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    code = (
        "import time; open('starts', 'a').write('x'); print('lost: 7', flush=True); time.sleep(60)"
    )
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, code, astray=("(lost|left): ", "a letter was lost")))
        starts = tmp_path / "starts"
        until(lambda: starts.exists() and len(starts.read_text()) >= 3, supervisor)
    assert said == ["a letter was lost"]


def test_another_programs_output_may_tell_it_too(tmp_path: Path) -> None:
    said: list[str] = []
    astray = ("lost: ", "a letter was lost")
    quiet = service(
        tmp_path,
        "import time; open('starts', 'a').write('x'); time.sleep(60)",
        astray=astray,
        also_read=("the other",),
    )
    telling = "import time; print('lost: 7', flush=True); time.sleep(60)"
    with Supervisor(said.append) as supervisor:
        supervisor.start(quiet)
        log = tmp_path / "logs" / "other.log"
        supervisor.start(service(tmp_path, telling, name="the other", log=log))
        starts = tmp_path / "starts"
        until(lambda: starts.exists() and len(starts.read_text()) == 2, supervisor)
    assert said == ["a letter was lost"]


def test_who_loses_a_child_that_it_needs_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    code = (
        "import subprocess, time; open('starts', 'a').write('x');"
        "kept = subprocess.Popen(['true']); time.sleep(60)"  # a dropped one may be waited for
    )
    with Supervisor(said.append) as supervisor:
        supervisor.start(service(tmp_path, code, needs_children=True))
        starts = tmp_path / "starts"
        until(lambda: starts.exists() and len(starts.read_text()) >= 2, supervisor, 60)
    assert said == ["a child process of it has died; restarting it"]
