"""The command: its answers to bad input, its run folder, and going on after an interruption."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from event_files import curves

from fl_ppseg.config.loading import load_config
from fl_ppseg.config.run_layout import TAKEN
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.learning.scores import round_scores
from fl_ppseg.progress.events import Event
from fl_ppseg.progress.observer import Observer
from fl_ppseg.simulate import main
from fl_ppseg.system import workers
from fl_ppseg.system.errors import RunError
from strategies.coordinator.conclusion import NO_IMAGE_UNKNOWN, write_report

SUMMARY_KEYS = {
    "schema", "no_image", "arms", "val_images", "total_seconds", "peak_rss_mb", "notes",
}  # fmt: skip
SCORES = {"aAcc", "mIoU", "mAcc", "own_mIoU"}
CLIMB = {"start_mIoU", "gain", "ratio_to_plain", "of_plain_above_no_image"}
ARM_KEYS = {
    *SCORES, *CLIMB, *(f"{score}_std" for score in (*SCORES, "start_mIoU", "gain")),
    *(f"{name}_ci95{kind}" for name in ("mIoU", "gain", "ratio", "of_plain_above_no_image")
      for kind in ("", "_images", "_places")),
    "newest_mIoU", "per_class_iou", "per_client_mIoU",
    "per_seed", "rounds", "seconds", "bytes_up", "bytes_down",
}  # fmt: skip

Simulate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def answer(simulate: Simulate) -> Callable[..., str]:
    """The one line that a bad input gets."""

    def call(*options: str, **changes: Any) -> str:
        status, out, err = simulate("--quiet", *options, **changes)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"error: [^\n]+\n", err), err
        return err

    return call


# Bad input.


@pytest.mark.parametrize("number", ["0", "-1", "-18"])
def test_no_clients(number: str, answer: Callable[..., str]) -> None:
    assert f"clients: Input should be greater than 0, got {number}" in answer("--clients", number)


def test_clients_that_are_no_number(answer: Callable[..., str]) -> None:
    assert "invalid int value: 'many'" in answer("--clients", "many")


def test_unknown_arm_with_the_nearest(answer: Callable[..., str]) -> None:
    assert "unknown arm 'per-imag'; did you mean 'per-image'?" in answer("--arms", "per-imag")
    assert "possible: plain" in answer("--arms", "zzzz")


def test_arm_named_twice(answer: Callable[..., str]) -> None:
    assert "must not repeat" in answer("--arms", "plain,plain")


def test_unknown_config_keys(answer: Callable[..., str]) -> None:
    text = answer("--set", "training.learning_rat=1")
    assert "unknown key 'training.learning_rat'; did you mean 'learning_rate'?" in text
    assert "unknown key 'colour'" in answer(colour="red")
    assert "expected dotted.key=value" in answer("--set", "seeds")


def test_yaml_of_the_wrong_type(tmp_path: Path, answer: Callable[..., str]) -> None:
    for text, reason in (
        ("- a\n- b\n", "expected a mapping of keys, got list"),
        ("just text\n", "expected a mapping of keys, got str"),
        ("a: [1\n", "not YAML"),
        ("federation: 3\n", "federation"),
        ("federation: {num_rounds: many}\n", "federation.num_rounds: .* got 'many'"),
        ("data: {image_size: 64}\n", "data.image_size"),
    ):
        path = tmp_path / "wrong.yaml"
        path.write_text(text)
        assert re.search(reason, answer("--config", str(path)))


def test_missing_config_names_those_there_are(answer: Callable[..., str]) -> None:
    assert "no config 'non-existent': give a YAML file or one of" in answer(
        "--config", "non-existent"
    )


def test_quick_with_a_config(answer: Callable[..., str]) -> None:
    assert "leave out --config or --quick" in answer("--quick")


def test_data_root_without_the_layout(tmp_path: Path, answer: Callable[..., str]) -> None:
    assert "no such folder; give the folder" in answer("--data-root", str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    text = answer("--data-root", str(tmp_path / "empty"))
    assert "leftImg8bit: no such folder; a data set in Cityscapes layout" in text


@pytest.fixture
def tree(scenes: Path, tmp_path: Path) -> Path:
    return small.tree_of_links(scenes, tmp_path / "tree")


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_tree_without_label_maps(tree: Path, answer: Callable[..., str]) -> None:
    remove(tree / "gtFine")
    assert f"{tree / 'gtFine'}: no such folder" in answer(root=tree)


def test_tree_without_val(tree: Path, answer: Callable[..., str]) -> None:
    remove(tree / "leftImg8bit" / "val")
    assert "the data set has no 'val' split" in answer(root=tree)


def test_missing_label_map_is_named(tree: Path, answer: Callable[..., str]) -> None:
    missing = sorted((tree / "gtFine/train/bochum").iterdir())[1]
    missing.unlink()
    assert f"{missing}: missing; add this label map or remove its image" in answer(root=tree)


def test_empty_city_is_named(tree: Path, answer: Callable[..., str]) -> None:
    (tree / "leftImg8bit/train/zurich").mkdir()
    assert "zurich: empty city" in answer(root=tree)


def test_truncated_image_while_encrypting(
    tree: Path, tmp_path: Path, answer: Callable[..., str], simulate: Simulate
) -> None:
    """With the vaults' processes; what was encrypted before is kept and found again."""
    broken = sorted((tree / "leftImg8bit/train/bremen").iterdir())[1]
    content = broken.read_bytes()
    broken.unlink()
    broken.write_bytes(content[:300])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "ProcessPoolExecutor", small.REAL_POOL)
        text = answer("--out", str(tmp_path / "out"), root=tree)
    assert str(broken) in text
    assert "restore the file or remove the scene" in text
    assert not (tmp_path / "out" / "config.yaml").exists()

    broken.write_bytes(content)
    assert simulate("--quiet", "--prepare", "--out", str(tmp_path / "out"), root=tree)[0] == 0


def test_run_that_is_there_already(
    tmp_path: Path, simulate: Simulate, answer: Callable[..., str]
) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert simulate("--prepare", *out)[0] == 0
    before = (tmp_path / "out" / "config.yaml").read_bytes()
    assert "holds a run already; add --resume or choose another" in answer(*out)
    assert (tmp_path / "out" / "config.yaml").read_bytes() == before


def test_resume_of_nothing(tmp_path: Path, answer: Callable[..., str]) -> None:
    assert "--resume needs --out" in answer("--resume")
    assert "--resume needs --out" in answer("--resume", "--out", str(tmp_path / "nothing"))


def test_more_clients_than_images(answer: Callable[..., str]) -> None:
    text = answer("--clients", "17")
    assert "17 clients for 16 images" in text
    assert "ask for at most 8" in text


def test_image_size_that_does_not_divide(answer: Callable[..., str]) -> None:
    text = answer("--set", "data.image_size=[30, 64]")
    assert "30" in text and "8" in text


def test_weights_that_are_not_there(tmp_path: Path, answer: Callable[..., str]) -> None:
    missing = tmp_path / "no.safetensors"
    assert str(missing) in answer("--set", f"model.weights={missing}")


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-h"])
    assert ended.value.code == 0
    assert "--clients N" in capsys.readouterr().out


# A whole run.


def test_a_run_writes_its_folder_and_prints_its_table(
    tmp_path: Path, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = ["plain", "per-image", "per-image-per-block"]
    status, out, err = simulate("--quiet", "--arms", ",".join(arms), "--out", str(tmp_path / "o"))
    assert (status, err) == (0, "")
    rows = [line.split()[0] for line in out.splitlines() if re.search(r"\d\.\d", line)]
    assert rows == ["no", *arms, *arms]  # no image; the intervals
    over = re.findall(r"^ [a-z-]+ +(val images|val places|seeds) ", out, re.MULTILINE)
    assert over == ["val images"] * len(arms)  # one seed, two places
    assert str(tmp_path / "o" / "report.html") in out

    folder = RunFolder(tmp_path / "o")
    summary = json.loads(folder.summary.read_text("utf-8"))
    assert summary.keys() == SUMMARY_KEYS
    assert list(summary["arms"]) == arms
    for entry in summary["arms"].values():
        assert entry.keys() == ARM_KEYS
        assert 0 <= entry["mIoU"] <= entry["aAcc"] <= 100
        assert entry["per_client_mIoU"].keys() >= {
            "aachen",
            "bochum",
            "bremen",
            "lindau",
            "munster",
        }
        assert len(entry["per_class_iou"]) == 19
        assert entry["rounds"] == 2
        assert entry["per_seed"][0].keys() == {"seed", *SCORES, *CLIMB}
    assert summary["arms"]["plain"]["ratio_to_plain"] == 1.0
    assert summary["val_images"] == {
        "num_images": 4, "num_places": 2, "resamples": 2000, "seed": 0,
    }  # fmt: skip
    for entry in summary["arms"].values():
        low, high = entry["mIoU_ci95_images"]
        assert low < entry["newest_mIoU"] < high
        assert entry["mIoU_ci95"] is entry["mIoU_ci95_places"] is None
    assert summary["arms"]["plain"]["ratio_ci95_images"] == [1, 1]
    size = sum(value.nbytes for value in small.final(folder, "plain").values())
    assert summary["arms"]["plain"]["bytes_up"] == 2 * 3 * size
    assert summary["arms"]["plain"]["bytes_down"] == (5 + 2 * (3 + 5)) * size

    report = folder.report.read_text("utf-8")
    assert "per-image-per-block" in report and "<svg" in report
    assert "val images: other photographs of the same places" in report
    assert list((folder.path / "figures").iterdir())
    assert folder.log.read_text("utf-8")
    assert not list(folder.path.rglob(".*tmp"))
    assert folder.partition.exists()
    there = {path.name for path in folder.path.iterdir()}
    assert set(arms) < there <= {*arms, *TAKEN}  # no arm can be called as anything else is

    write_report(load_config(folder.config), folder)  # as a coordinator does, who has no image
    again = json.loads(folder.summary.read_text("utf-8"))
    assert again["no_image"] is None and again["notes"][-1] == NO_IMAGE_UNKNOWN
    for arm in arms:
        assert again["arms"][arm]["mIoU"] == summary["arms"][arm]["mIoU"]
    printed = capsys.readouterr().out
    assert all(arm in printed for arm in arms) and f"report: {folder.report}" in printed


def test_own_arms_and_seeds(tmp_path: Path, simulate: Simulate) -> None:
    table = {"mine": {"note": "my own", "embedding": "frozen"}}
    changes: dict[str, Any] = {"arms": ["mine"], "arm_table": table, "seeds": [0, 1]}
    status, _, err = simulate("--out", str(tmp_path / "o"), "--quiet", **changes)
    assert (status, err) == (0, "")
    folder = RunFolder(tmp_path / "o")
    summary = json.loads(folder.summary.read_text("utf-8"))
    assert [entry["seed"] for entry in summary["arms"]["mine"]["per_seed"]] == [0, 1]
    assert summary["arms"]["mine"]["ratio_to_plain"] is None
    both = [small.bits(small.final(folder, "mine", seed)) for seed in (0, 1)]
    assert both[0] != both[1]


@pytest.mark.parametrize("arm", ["centralised", "local-only", "plain-frozen-embedding"])
def test_arms_of_other_kinds_reach_the_report(arm: str, tmp_path: Path, simulate: Simulate) -> None:
    status, out, err = simulate("--quiet", "--arms", f"plain,{arm}", "--out", str(tmp_path / "o"))
    assert (status, err) == (0, "")
    assert arm in out
    assert arm in (tmp_path / "o" / "report.html").read_text("utf-8")


SHARED_KEY = {
    "note": "in one place",
    "training": "centralised",
    "key_mode": "shared",
    "cipher": "shuffle",
    "block_scope": "common",
    "key_lifetime": "derived",
}


def test_shared_key_arms_in_one_place_train_on_every_owners_images(
    tmp_path: Path, simulate: Simulate
) -> None:
    """With E adapted to the key, E'x' = Ex: training gives the weights of plain training again."""
    table = {"conventional": SHARED_KEY, "adapted": SHARED_KEY | {"embedding": "adapted"}}
    arms = ["centralised", *table]
    options = ("--quiet", "--out", str(tmp_path / "o"))
    status, out, err = simulate(*options, arms=arms, arm_table=table)
    assert (status, err) == (0, "")
    folder = RunFolder(tmp_path / "o")
    trained = [line for line in folder.lines() if line["role"] == "train"]
    held_out = 3  # one a client
    assert len(trained) == len(arms) * 2
    assert {(line["client"], line["num_examples"]) for line in trained} == {
        ("aachen", 16 - held_out)
    }

    plain, adapted = (small.final(folder, arm) for arm in ("centralised", "adapted"))
    embedding = "backbone.patch_embed.proj.weight"
    for name in plain.keys() - {embedding}:
        np.testing.assert_allclose(adapted[name], plain[name], atol=1e-4)
    assert not np.allclose(adapted[embedding], plain[embedding], atol=1e-2)
    columns = [np.sort(w[embedding].reshape(len(w[embedding]), -1)) for w in (adapted, plain)]
    np.testing.assert_allclose(*columns, atol=1e-4)

    found = json.loads(folder.summary.read_text("utf-8"))["arms"]
    assert {arm: "key_trials" in entry for arm, entry in found.items()} == {
        "centralised": False, "conventional": True, "adapted": True,
    }  # fmt: skip
    right = found["adapted"]["key_trials"]["right"]
    assert right["aAcc"] == pytest.approx(found["centralised"]["aAcc"], abs=0.2)
    assert "wrong" in out
    assert "With the wrong key" in folder.report.read_text("utf-8")


def test_a_report_of_procedural_scenes_shows_every_cipher(
    tmp_path: Path, simulate: Simulate
) -> None:
    data = {"num_train": 72, "num_val": 6, "scene_size": [32, 64], "num_views": 1}
    changes = {"data": data, "clients": 1, "arms": ["plain"], "federation": {"num_rounds": 1}}
    assert simulate("--quiet", "--out", str(tmp_path / "o"), root=None, **changes)[0] == 0
    assert "One image under every cipher" in (tmp_path / "o" / "report.html").read_text("utf-8")


def test_without_a_shared_key_no_key_is_tried(tmp_path: Path, simulate: Simulate) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fl_ppseg.experiment.simulation.key_trials", pytest.fail)
        assert simulate("--quiet", "--out", str(tmp_path / "o"), arms=["per-image"])[0] == 0


@pytest.mark.parametrize(
    ("kind", "words"), [("iid", "at random"), ("dirichlet", "Dirichlet(0.5) mixture")]
)
def test_other_partitions(kind: str, words: str, tmp_path: Path, simulate: Simulate) -> None:
    changes = {"partition": {"kind": kind}, "arms": ["plain"], "federation": {"num_rounds": 1}}
    status, _, err = simulate("--out", str(tmp_path / "o"), **changes)
    assert status == 0
    assert words in err
    record = json.loads((tmp_path / "o" / "partition.json").read_text("utf-8"))
    dealt = [
        stem for client in record["clients"].values() for stems in client.values() for stem in stems
    ]
    assert len(dealt) == len(set(dealt)) == 16


def test_fewer_clients_merge_cities_and_say_so(tmp_path: Path, simulate: Simulate) -> None:
    status, _, err = simulate("--prepare", "--clients", "2", "--out", str(tmp_path / "o"))
    assert status == 0
    assert "2 clients for 3 cities: cities are merged" in err


def test_nineteen_clients_split_one_of_eighteen_procedural_cities(
    tmp_path: Path, simulate: Simulate
) -> None:
    """With all defaults of the data but its size."""
    data = {"num_train": 72, "num_val": 6, "scene_size": [32, 64], "num_views": 1}
    options = ("--prepare", "--clients", "19", "--arms", "plain", "--out", str(tmp_path / "o"))
    status, out, err = simulate(*options, root=None, data=data)
    assert status == 0, err
    assert "19 clients for 18 cities: split into contiguous shards are strasbourg into 2" in err
    assert "flwr run . local" in out
    record = json.loads((tmp_path / "o" / "partition.json").read_text("utf-8"))
    assert len(record["clients"]) == 19
    assert {"strasbourg-1", "strasbourg-2"} < record["clients"].keys()
    assert sum(len(s) for c in record["clients"].values() for s in c.values()) == 72


# Going on.


class Interrupting(Observer):
    """Ends the run at one of its events."""

    def __init__(self, error: BaseException, event: str, count: int) -> None:
        self.error, self.event, self.left = error, event, count

    def on_event(self, event: Event) -> None:
        self.left -= event.event == self.event
        if self.left == 0:
            raise self.error


def results(folder: Path) -> list[dict[str, Any]]:
    """Lines of results.jsonl without what time decides."""
    lines = RunFolder(folder).lines()
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first that is interrupted keeps its vaults, and the run to compare with."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.mark.parametrize(
    ("event", "count", "error", "said"),
    [
        ("round_finished", 3, KeyboardInterrupt(), "interrupted; "),
        ("replied", 20, KeyboardInterrupt(), "interrupted; "),
        ("replied", 5, RunError("no more"), "no more"),
        ("replied", 43, OSError(28, "No space left on device"), "no space left on the disk"),
    ],
)
def test_interrupted_run_goes_on_to_the_same_bits(
    event: str,
    count: int,
    error: BaseException,
    said: str,
    tmp_path: Path,
    undisturbed: Path,
    simulate: Simulate,
) -> None:
    changes: dict[str, Any] = {
        "arms": ["plain", "per-client"],
        "federation": {"num_rounds": 3, "strategy": "fedavgm"},
    }
    quiet = ("--quiet", "--vault-dir", str(undisturbed / "vaults"))
    whole, broken = str(undisturbed / "run"), str(tmp_path / "broken")
    if not Path(whole).exists():
        assert simulate(*quiet, "--out", whole, **changes)[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        observer = Interrupting(error, event, count)
        patch.setattr("fl_ppseg.experiment.simulation.choose_view", lambda *_: observer)
        status, _, err = simulate(*quiet, "--out", broken, **changes)
    assert status == 1
    assert said in err and err.count("\n") == 1
    assert results(Path(broken)) != results(Path(whole))

    assert simulate(*quiet, "--resume", "--out", broken)[0] == 0
    assert results(Path(broken)) == results(Path(whole))
    for arm in changes["arms"]:
        file = f"{arm}/seed_0/round_0003.safetensors"
        assert (Path(broken) / file).read_bytes() == (Path(whole) / file).read_bytes()
    assert (Path(broken) / "report.html").exists()


def test_tensorboard_shows_each_round_of_a_resumed_run_once(
    tmp_path: Path, simulate: Simulate
) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    options = ("--quiet", "--observer", "tensorboard", "--out", str(out))
    with pytest.MonkeyPatch.context() as patch:
        observer = Interrupting(KeyboardInterrupt(), "replied", 12)
        patch.setattr("fl_ppseg.experiment.simulation.choose_view", lambda *_: observer)
        _, _, err = simulate(*options, arms=["plain"], federation={"num_rounds": 2})
    assert "--resume" in err and "--observer tensorboard" in err
    assert simulate(*options, "--resume")[0] == 0
    lines = RunFolder(out).lines()
    scores = [
        round_scores(x for x in lines if x["round"] == n and x["role"] == "val") for n in range(3)
    ]
    drawn = curves(out, "plain")
    assert [n for n, _ in drawn["val/mIoU"]] == [0, 1, 2]
    assert [v for _, v in drawn["val/mIoU"]] == pytest.approx(
        [s.mIoU for s in scores if s], abs=1e-3
    )
    losses = [x["loss"] for x in lines if x["role"] == "round" and x["round"]]
    assert [n for n, _ in drawn["train/loss"]] == [1, 2]
    assert [v for _, v in drawn["train/loss"]] == pytest.approx(losses, abs=1e-3)
    assert "tensorboard" not in (out / "config.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--observer", "wandb"), "expected tensorboard or an import string"),
        (("--observer", "tensorboard", "--prepare"), "leave one out"),
    ],
)
def test_an_observer_that_cannot_be_told_is_refused_before_the_work(
    options: tuple[str, ...], said: str, tmp_path: Path, simulate: Simulate
) -> None:
    status, _, err = simulate(*options, "--out", str(tmp_path / "out"))
    assert status == 2
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_results_without_their_checkpoint_are_forgotten(tmp_path: Path, simulate: Simulate) -> None:
    """The process dies after a round's results are on disk and before its weights are."""
    save = RunFolder.save

    def dying(folder: RunFolder, checkpoint: Checkpoint, keep: int) -> None:
        if checkpoint.round == 2:
            raise RunError("power cut")
        save(folder, checkpoint, keep)

    out = ("--quiet", "--out", str(tmp_path / "o"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save", dying)
        assert simulate(*out, arms=["plain"])[0] == 1
    cut = results(tmp_path / "o")
    assert {line["round"] for line in cut} == {0, 1, 2}
    assert simulate("--resume", *out)[0] == 0
    assert results(tmp_path / "o") == cut


def test_a_run_that_is_stopped_while_its_val_images_are_scored_is_not_lost(
    tmp_path: Path, simulate: Simulate
) -> None:
    out = ("--quiet", "--out", str(tmp_path / "o"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fl_ppseg.experiment.simulation.count_val_images", interrupted)
        status, _, err = simulate(*out, arms=["plain"])
    assert status == 1
    assert "finished rounds are kept" in err and "--resume" in err
    before = results(tmp_path / "o")
    assert simulate("--resume", *out)[0] == 0
    assert results(tmp_path / "o") == before
    summary = json.loads((tmp_path / "o" / "summary.json").read_text("utf-8"))
    assert summary["arms"]["plain"]["mIoU_ci95_images"]


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_finished_run_resumes_to_its_report(tmp_path: Path, simulate: Simulate) -> None:
    out = ("--quiet", "--out", str(tmp_path / "o"))
    assert simulate(*out, arms=["plain"])[0] == 0
    before = results(tmp_path / "o")
    (tmp_path / "o" / "report.html").unlink()
    assert simulate("--resume", *out)[0] == 0
    assert results(tmp_path / "o") == before
    assert (tmp_path / "o" / "report.html").exists()


def test_damaged_checkpoint_goes_back_to_the_one_before(tmp_path: Path, simulate: Simulate) -> None:
    out = ("--quiet", "--out", str(tmp_path / "o"))
    assert simulate(*out, arms=["plain"])[0] == 0
    before = results(tmp_path / "o")
    newest = tmp_path / "o/plain/seed_0/round_0002.safetensors"
    whole = newest.read_bytes()
    newest.write_bytes(whole[:-4] + b"gone")
    with (tmp_path / "o" / "results.jsonl").open("a") as file:
        file.write('{"half": ')
    assert simulate("--resume", *out)[0] == 0
    assert newest.read_bytes() == whole
    assert results(tmp_path / "o") == before


def test_prepare_stops_before_round_1_and_says_how_to_go_on(
    tmp_path: Path, simulate: Simulate
) -> None:
    out = tmp_path / "run"
    status, printed, _ = simulate("--prepare", "--quiet", "--out", str(out))
    assert status == 0
    for said in ("flwr run . local", f'run-dir="{out}"', "num-nodes=5", f"--out {out}"):
        assert said in printed
    assert not (out / "results.jsonl").exists()
    assert not (out / "report.html").exists()
    assert simulate("--quiet", "--resume", "--out", str(out))[0] == 0
    assert (out / "report.html").exists()
