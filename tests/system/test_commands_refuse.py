"""What commands refuse before the work, and what they hear: every option, every setting."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from clients import client_app
from fl_ppseg import evaluate, initialise, pretrain, simulate
from fl_ppseg.audit import command as audit
from fl_ppseg.config.loading import load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.config.unread import refuse_unread, unread_settings
from fl_ppseg.experiment import simulation
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.evaluation import score
from fl_ppseg.progress.lines import say
from fl_ppseg.progress.steps import StepProgress
from fl_ppseg.report.tables import bare_table
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.places import check_apart, check_file, check_run
from fl_ppseg.system.wording import counted

Simulate = Callable[..., tuple[int, str, str]]
CLIENTS = ["--train-clients", "a", "--val-clients", "b", "--out", "o"]
ODD_NAMES = ["x[/]y", "x[bold]y", "[red]", "a b's", "[link=file:///]z", "\\[x"]


def leaves(values: dict[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


# Settings that nobody reads.


@pytest.mark.parametrize(
    ("main", "arguments", "setting"),
    [
        (pretrain.main, ["--out", "w.safetensors"], "data.root=/tree"),
        (pretrain.main, ["--out", "w.safetensors"], "data.classes=camvid"),
        (pretrain.main, ["--out", "w.safetensors"], "data={classes: camvid}"),
        (pretrain.main, ["--out", "w.safetensors"], "data.fresh_views=true"),
        (pretrain.main, ["--out", "w.safetensors"], "device=cuda:9"),
        (pretrain.main, ["--out", "w.safetensors"], "federation.num_rounds=3"),
        (pretrain.main, ["--out", "w.safetensors"], "model.weights=x.safetensors"),
        (pretrain.main, ["--out", "w.safetensors"], "num_workers=3"),
        (pretrain.main, ["--out", "w.safetensors"], "seeds=[1]"),
        (pretrain.main, ["--out", "w.safetensors"], "training.momentum=0.5"),
        (initialise.main, CLIENTS, "clients=3"),
        (initialise.main, CLIENTS, "data.root=/tree"),
        (initialise.main, CLIENTS, "engine=ray"),
        (initialise.main, CLIENTS, "partition={kind: iid}"),
        (audit.main, ["--out", "o"], "federation.strategy=fedadam"),
        (audit.main, ["--out", "o"], "engine=in-process"),
        (audit.main, ["--out", "o"], "data.fresh_views=true"),
        (simulate.main, ["--out", "o"], "partition.alpha=0.1"),
        (simulate.main, ["--out", "o"], "federation.trim_fraction=0.2"),
        (simulate.main, ["--out", "o"], "training.codec_rank=8"),
        (simulate.main, ["--out", "o"], "training.codec_density=0.1"),
        (simulate.main, ["--out", "o", "--data-root", "/tree"], "data.num_train=9"),
        (simulate.main, ["--out", "o", "--data-root", "/tree"], "data={scene_seed: 9}"),
    ],
)  # fmt: skip
def test_a_setting_that_a_command_does_not_read_is_refused_by_it(
    main: Callable[..., int],
    arguments: list[str],
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(main, [*arguments, "--set", setting]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --set ")
    assert setting.partition("=")[0] in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_unread_is_a_setting_and_what_is_read_is_heard() -> None:
    known = set(leaves(Config().model_dump(mode="json")))
    for unread in (pretrain.UNREAD, initialise.UNREAD, audit.UNREAD):
        for name in unread:
            assert any(leaf == name or leaf.startswith(f"{name}.") for leaf in known), name
    config = load_config(None, ["partition.kind=dirichlet", "training.optimizer=sgd"])
    refuse_unread(["partition.alpha=1", "training.momentum=0"], unread_settings(config))
    coded = load_config(None, ["training.codec=low-rank"])
    refuse_unread(["training.codec_rank=8"], unread_settings(coded))
    refuse_unread(["training.learning_rate=1", "model.depth=3"], pretrain.UNREAD)
    fresh = unread_settings(load_config(None, ["data.fresh_views=true"]))
    with pytest.raises(InputError, match=r"data\.num_views: is not read with data\.fresh_views"):
        refuse_unread(["data.num_views=8"], fresh)
    refuse_unread(["data.num_views=8"], unread_settings(load_config(None)))


# Places.


def test_places_that_cannot_be_written_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder, so that root cannot write into it either")
    with pytest.raises(InputError, match="--vault-dir"):
        check_run(file / "vaults", tmp_path / "run")
    with pytest.raises(InputError, match="nothing can be written there"):
        check_file(file / "w.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        check_file(file)
    monkeypatch.setattr(simulation, "simulate", lambda *_, **__: pytest.fail("it began"))
    assert run(simulate.main, ["--out", str(file / "run"), "--engine", "in-process"]) == 2
    assert "nothing can be written there" in capsys.readouterr().err
    assert run(pretrain.main, ["--out", str(file / "w.safetensors")]) == 2
    assert "nothing can be written there" in capsys.readouterr().err
    clients = ["--train-clients", "a", "--val-clients", "b"]
    assert run(initialise.main, [*clients, "--out", str(file / "run")]) == 2
    assert "nothing can be written there" in capsys.readouterr().err


@pytest.mark.parametrize(("keys", "others"), [("a", "a"), ("a/b", "a"), ("a", "a/b")])
def test_keys_lie_in_no_folder_of_others(keys: str, others: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keys must be kept apart") as refused:
        check_apart(tmp_path / keys, tmp_path / others, "--out")
    assert len(str(refused.value).splitlines()) == 1
    check_apart(tmp_path / "a", tmp_path / "ab", "--out")


@pytest.mark.parametrize("content", [None, b"no tensors", b"\x80\x04pickle"])
def test_a_start_that_is_no_weights_file_is_refused_before_the_work(
    content: bytes | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = tmp_path / "start.safetensors"
    if content is not None:
        start.write_bytes(content)
    monkeypatch.setattr(pretrain, "pretrain", lambda *_: pytest.fail("it began"))
    out = ["--out", str(tmp_path / "w.safetensors")]
    assert run(pretrain.main, ["--start", str(start), *out]) == 2
    error = capsys.readouterr().err
    assert str(start) in error
    assert error.count("\n") == 1


# Names that look like markup.


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_others_named_is_printed_as_it_is(name: str) -> None:
    console = Console(record=True, width=80)
    say(console, f"report: /runs/{name}/report.html")
    table = bare_table(f"published: {name}")
    table.add_column("a column of some width, for the words under it")
    console.print(table)
    text = console.export_text()
    assert f"report: /runs/{name}/report.html" in text
    assert f"published: {name}" in text
    steps = StepProgress(Console(record=True, width=80, force_terminal=True))
    with steps:
        steps.update(f"looking at images of {name}", 1, 2)
    bars: Progress = steps._bars
    assert name in "".join(str(bars.columns[0].render(task)) for task in bars.tasks)


def test_a_run_in_a_folder_of_markup_names_its_report(tmp_path: Path, simulate: Simulate) -> None:
    out = tmp_path / "x[/]y [bold]z"
    status, printed, _ = simulate("--out", str(out), arms=["plain"])
    assert status == 0
    assert f"report: {out / 'report.html'}" in printed


# Going on.


def test_a_finished_run_goes_on_to_more_rounds(tmp_path: Path, simulate: Simulate) -> None:
    out = ("--quiet", "--out", str(tmp_path / "o"))
    folder = RunFolder(tmp_path / "o")
    assert simulate(*out, arms=["plain"])[0] == 0
    first = [line for line in folder.lines() if line["round"] <= 2]
    getattr(client_app._policy, "cache_clear", dict)()  # another process has not read it
    status, _, error = simulate(*out, "--resume", "--set", "federation.num_rounds=3")
    assert status == 0, error
    assert load_config(folder.config).federation.num_rounds == 3
    found = folder.latest("plain", 0)
    assert found is not None
    assert found.round == 3
    assert [line for line in folder.lines() if line["round"] <= 2] == first
    status, _, error = simulate(*out, "--resume", "--set", "federation.num_rounds=1")
    assert status == 2
    assert "has 3 rounds done already" in error
    status, _, error = simulate(*out, "--resume", "--set", "training.learning_rate=1")
    assert status == 2
    assert "leave out --set training.learning_rate" in error
    assert "federation.num_rounds" in error


def test_a_checkpoint_is_where_the_next_run_starts(
    tmp_path: Path, scenes: Path, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, its arm's folder, or its run's; a run of other settings is noticed."""
    out = tmp_path / "o"
    assert simulate("--quiet", "--out", str(out), arms=["plain"])[0] == 0
    newest = RunFolder(out).latest("plain", 0)
    assert newest is not None
    for number, place in enumerate(("", "plain", "plain/seed_0/round_0002.safetensors")):
        other = tmp_path / f"next_{number}"
        weights = f"model.weights={out / place}"
        options = ("--quiet", "--prepare", "--out", str(other), "--set", weights)
        status, _, error = simulate(*options, arms=["plain"])
        assert status == 0, error
        start = RunFolder(other).latest("plain", 0)
        assert start is not None
        for name, value in newest.arrays.items():
            np.testing.assert_array_equal(start.arrays[name], value)
        capsys.readouterr()
        arguments = [str(out / place), "--data-root", str(scenes), "--json", "--quiet"]
        assert run(evaluate.main, arguments) == 0
        assert json.loads(capsys.readouterr().out)["all"]["aAcc"] is not None
    config = RunFolder(out).config
    config.write_bytes((tmp_path / "next_0" / "config.yaml").read_bytes())  # whole, of another run
    status, _, error = simulate("--quiet", "--resume", "--out", str(out))
    assert status == 2
    assert "was trained with other settings" in error


def test_evaluate_names_a_device_that_is_not_there(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for device in ("cuda:7", "gpu", "meta:x"):
        arguments = ["nowhere", "--data-root", str(scenes), "--device", device, "--quiet"]
        assert run(evaluate.main, arguments) == 2
        error = capsys.readouterr().err
        assert f"device {device!r} cannot be used here" in error
        assert error.count("\n") == 1


def test_scores_of_nothing_are_null_in_json_and_a_dash_in_the_table() -> None:
    nothing = evaluate._percent(score(np.zeros((2, 2), np.int64)))
    assert nothing == {"aAcc": None, "mIoU": None, "mAcc": None}
    assert json.loads(json.dumps(nothing, allow_nan=False)) == nothing
    scores = {"clients": {"ulm": nothing}, "all": nothing, "start": nothing, "no_image": None}
    assert evaluate._table(scores).count("–") == 9


def test_ctrl_c_names_the_folder_and_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(config: Config, out: Path, *_: object, **__: object) -> None:
        if begun:
            out.mkdir(parents=True)
            (out / "config.yaml").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "simulate", interrupted)
    out = tmp_path / "a b"
    options = ["--out", str(out), "--vault-dir", str(tmp_path / "v"), "--engine", "in-process"]
    begun = False
    assert run(simulate.main, options) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: interrupted; no round was started")
    begun = True
    assert run(simulate.main, options) == 1
    error = capsys.readouterr().err
    assert f"finished rounds are kept in {out}" in error
    assert f"--resume --out '{out}' --vault-dir {tmp_path / 'v'} --engine in-process" in error
    assert error.count("\n") == 1


def test_one_is_singular() -> None:
    assert [counted(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert counted(2, "val client") == "2 val clients"
    assert counted(1, "val client") == "1 val client"
    assert counted(2, "day") == "2 days"
    assert counted(1200, "child", "children") == "1,200 children"
