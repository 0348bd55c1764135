"""`python -m fl_ppseg.predict` and `fl_ppseg.export`, as they are typed."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_runs
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling
from PIL import Image

import fl_ppseg
from clients.vault.keys.keyring import ensure_shared_subkey
from fl_ppseg import export
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.evaluate import evaluate_checkpoint
from fl_ppseg.learning.evaluation import segment
from fl_ppseg.predict import running
from fl_ppseg.predict.command import main
from fl_ppseg.setr.model import SETR, Logits
from fl_ppseg.system import files
from fl_ppseg.system.command_line import run as run_command

official = evalPixelLevelSemanticLabeling
ARM = "per-image-invariant"
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predicting") / "run"
    for arm in (ARM, "per-client-private", "conventional-2"):
        small_runs.add_checkpoint(folder, arm)
    small_runs.add_results(folder)
    return folder


@pytest.fixture
def predict(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command on images, into `tmp_path / "out"`: status, output, errors."""

    def call(*options: object, images: object, model: Path = run / ARM) -> tuple[int, str, str]:
        argv = ["--model", model, "--images", images, "--out", tmp_path / "out", *options]
        status = run_command(main, [str(each) for each in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photographs of several sizes and kinds."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for name, size in {"a": (45, 70), "b": (45, 70), "deep/c": (32, 64), "d": (5, 3)}.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
    return folder


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# The official evaluation.


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_cityscapes_own_evaluation_gives_the_score_of_evaluate(
    fit: str, scenes: Path, predict: Predict, tmp_path: Path
) -> None:
    """Its own search for predictions, by their names, over all that the command writes."""
    model = small_runs.add_checkpoint(tmp_path / "of_scenes", ARM, fit)
    images = scenes / "leftImg8bit" / "val"
    status, said, error = predict("--overlays", "--confidence", images=images, model=model)
    assert status == 0, error
    assert said == f"{tmp_path / 'out' / 'labelIds'}: label maps of 4 images\n"
    args = official.CArgs()
    vars(args).update(vars(official.args))
    args.evalInstLevelScore, args.JSONOutput, args.quiet = False, False, True
    args.predictionPath, args.predictionWalk = str(tmp_path / "out"), None
    truths = [str(path) for path in sorted(scenes.glob("gtFine/val/*/*_gtFine_labelIds.png"))]
    found = [official.getPrediction(args, truth) for truth in truths]
    report = official.evaluateImgLists(found, truths, args)
    ours = evaluate_checkpoint(model, scenes, split="val", classes="cityscapes")
    assert 100 * report["averageScoreClasses"] == pytest.approx(ours["all"]["mIoU"], abs=0.005)
    assert ours["all"]["mIoU"] > 0
    for name, value in ours["per_class_iou"].items():
        theirs = 100 * report["classScores"][name]
        assert np.isnan(theirs) if value is None else theirs == pytest.approx(value, rel=1e-12)


def test_a_whole_tree_is_read_without_its_label_maps(
    scenes: Path, predict: Predict, tmp_path: Path
) -> None:
    assert predict("--quiet", images=scenes) == (0, "", "")
    names = {path.name for path in (tmp_path / "out").rglob("*.png")}
    assert len(names) == 20 and all(name.endswith("_pred_labelIds.png") for name in names)


# Frames larger than the window.


class Windowed(torch.nn.Module):
    """Windows over a frame by a loop of its own, all logits at the frame's head resolution."""

    def __init__(self, model: SETR) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: torch.Tensor) -> Logits:
        (height, width), (rows, columns) = small_runs.SIZE, frames.shape[-2:]
        total: Any = None
        for top in [*range(0, rows - height, 16), rows - height]:
            for left in [*range(0, columns - width, 40), columns - width]:
                part = self.model(frames[..., top : top + height, left : left + width]).main
                scale = part.shape[-1] / width
                if total is None:
                    shape = (len(frames), part.shape[1], int(rows * scale), int(columns * scale))
                    total, number = torch.zeros(shape), torch.zeros(shape)
                y, x = int(top * scale), int(left * scale)
                total[..., y : y + part.shape[2], x : x + part.shape[3]] += part
                number[..., y : y + part.shape[2], x : x + part.shape[3]] += 1
        return Logits(total / number, ())


def test_a_large_frame_is_what_windows_computed_one_by_one_give(
    predict: Predict, tmp_path: Path
) -> None:
    """Cut from the ciphertext at whole blocks; the model reads what every key leaves."""
    model = fl_ppseg.load(small_runs.add_checkpoint(tmp_path / "of_frames", ARM, "crop"))
    frame = np.random.default_rng(5).integers(0, 256, (72, 160, 3), np.uint8)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    folder = fl_ppseg.save(model, tmp_path / "model")
    assert predict("--quiet", images=tmp_path / "frame.png", model=folder)[0] == 0
    query = fl_ppseg.encrypt(frame, model.spec)
    with torch.inference_mode():
        expected = segment(Windowed(model.network), torch.tensor(query.pixels[None]), (72, 160))
    found = read(tmp_path / "out" / "labelIds" / "frame_pred_labelIds.png")
    mine = model.classes.train_to_label[expected[0].numpy()]
    assert (found == mine).mean() > 0.999  # sums in another order
    assert len(np.unique(found)) > 2


# Files.


def test_every_image_gets_its_files_at_its_own_size(
    photos: Path, run: Path, predict: Predict, tmp_path: Path
) -> None:
    assert predict("--overlays", "--confidence", images=photos)[0] == 0
    out, model = tmp_path / "out", fl_ppseg.load(run / ARM)
    assert {*contents(out)} == {
        "predictions.json",
        *(f"labelIds/{name}_pred_labelIds.png" for name in ("a", "b", "d", "deep/c")),
        *(f"confidence/{name}.png" for name in ("confidence_a", "confidence_b", "confidence_d")),
        *(f"overlays/{name}.png" for name in ("overlay_a", "overlay_b", "overlay_d")),
        "confidence/deep/confidence_c.png",
        "overlays/deep/overlay_c.png",
    }
    client = fl_ppseg.Client(model)
    image = np.asarray(Image.open(photos / "a.png"))
    labels, confidence = client.segment(image)
    label_ids = model.classes.train_to_label[labels]
    np.testing.assert_array_equal(read(out / "labelIds/a_pred_labelIds.png"), label_ids)
    found = read(out / "confidence/confidence_a.png") / 255
    np.testing.assert_allclose(found, confidence, atol=0.5 / 255 + 1e-6)
    shown = np.asarray(Image.open(out / "overlays/overlay_a.png"))
    picture = fl_ppseg.overlay(image, labels, classes=model.classes)
    np.testing.assert_array_equal(shown, np.asarray(picture))
    assert read(out / "labelIds/d_pred_labelIds.png").shape == (5, 3)
    mode = stat.S_IMODE((out / "labelIds/a_pred_labelIds.png").stat().st_mode)
    assert mode == 0o644


def test_batches_change_nothing(photos: Path, predict: Predict, tmp_path: Path) -> None:
    outs = []
    for batch in (1, 8):
        assert predict("--batch", batch, "--quiet", images=photos)[0] == 0
        outs.append(contents(tmp_path / "out" / "labelIds"))
        shutil.rmtree(tmp_path / "out")
    assert outs[0] == outs[1]


def test_few_images_wait_however_many_sizes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of images."""
    waiting = most = 0

    def asked() -> Any:
        nonlocal waiting, most
        for number in range(100):
            waiting, most = waiting + 1, max(most, waiting + 1)
            pixels = np.zeros((3, 8, 8), np.uint8)
            query = fl_ppseg.QueryImage(pixels, (8, 8 + number % 50), None)
            yield running.Asked(str(number), pixels, query)

    names = []
    for group in running._groups(asked(), 2, 19):
        assert len({each.sizes for each in group}) == 1
        names += [each.name for each in group]
        waiting -= len(group)
    assert sorted(names, key=int) == [str(number) for number in range(100)]
    assert most <= running.WAITING * 2


# Going on.


def test_a_stopped_call_goes_on_with_what_is_left(
    photos: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = running.Outputs.write, tmp_path / "out"

    def interrupted(self: Any, name: str, *rest: Any) -> None:
        if name == "d":
            raise KeyboardInterrupt
        write(self, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(running.Outputs, "write", interrupted)
        status, _, error = predict("--batch", "1", "--quiet", images=photos)
    assert (status, error.count("\n")) == (1, 1) and "interrupted" in error
    before = contents(out)
    assert "labelIds/a_pred_labelIds.png" in before
    times = {name: (out / name).stat().st_mtime_ns for name in before}
    status, said, _ = predict(images=photos)
    assert status == 0 and said.endswith("label maps of 2 images; 2 were there\n")
    assert all((out / name).stat().st_mtime_ns == value for name, value in times.items())
    status, said, _ = predict("--overlays", images=photos)  # what was not asked for before
    assert said.endswith("label maps of 4 images\n")
    changed = np.zeros((9, 9, 3), np.uint8)
    Image.fromarray(changed).save(photos / "a.png")
    os.utime(photos / "a.png", (2**32, 2**32))
    status, said, _ = predict(images=photos)
    assert said.endswith("label maps of 1 image; 3 were there\n")
    assert read(out / "labelIds/a_pred_labelIds.png").shape == (9, 9)


def test_predictions_of_another_model_or_of_other_images_are_not_mixed(
    photos: Path, run: Path, predict: Predict, tmp_path: Path
) -> None:
    assert predict("--quiet", images=photos)[0] == 0
    before = contents(tmp_path / "out")
    other = small_runs.add_checkpoint(tmp_path / "other", ARM, round=3)
    for options in (
        {"images": photos, "model": other},
        {"images": photos / "deep"},
        {"images": photos, "fit": "crop"},
    ):
        fit = ("--fit", options.pop("fit")) if "fit" in options else ()
        status, _, error = predict(*fit, **options)
        assert status == 2 and "holds predictions of another model" in error
    assert contents(tmp_path / "out") == before


def test_a_folder_in_which_nothing_was_predicted_is_free(
    photos: Path, predict: Predict, tmp_path: Path
) -> None:
    """After an image that could not be read, the call without it needs no other folder."""
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    assert predict("--quiet", images=broken)[0] == 2
    assert predict("--quiet", images=photos)[0] == 0


# Keys of others.


def test_a_private_embedding_and_a_shared_key(
    photos: Path, run: Path, predict: Predict, tmp_path: Path
) -> None:
    assert predict("--quiet", images=photos, model=run / "per-client-private")[0] == 0
    shutil.rmtree(tmp_path / "out")
    shared = run / "conventional-2"
    status, _, error = predict(images=photos, model=shared)
    assert status == 2 and "give --key FILE" in error
    ensure_shared_subkey(tmp_path / "vaults", builtin_arms()["conventional-2"])
    key = tmp_path / "vaults" / ".shared" / "master.key"
    assert predict("--quiet", "--key", key, images=photos, model=shared)[0] == 0
    status, _, error = predict("--key", key, images=photos)
    assert status == 2 and "share no key" in error
    status, _, error = predict("--vault", tmp_path / "vaults", images=photos)
    assert status == 2 and "--vault and --client together" in error
    secret = key.read_bytes().split(b"\n")[1]
    assert not any(secret in content for content in contents(tmp_path / "out").values())


# What is refused.


def test_bad_input_is_one_line_and_writes_nothing(
    photos: Path, run: Path, predict: Predict, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    (tmp_path / "file").touch()
    twice = tmp_path / "twice"
    shutil.copytree(photos, twice)
    shutil.copy(twice / "a.png", twice / "a.jpg")
    bare = {"images": photos}
    cases: list[tuple[str, tuple[object, ...], dict[str, Any]]] = [
        ("no image found", (), {"images": tmp_path / "empty"}),
        ("no such file or folder", (), {"images": tmp_path / "nowhere"}),
        ("same name", (), {"images": twice}),
        ("must not contain each other", ("--out", photos / "out"), bare),
        ("holds no predictions", ("--out", tmp_path / "taken"), bare),
        ("holds no predictions", ("--out", tmp_path / "file"), bare),
        ("nothing can be written there", ("--out", tmp_path / "file" / "out"), bare),
        ("cannot be used here", ("--device", "cuda:9"), bare),
        ("several arms", (), {"images": photos, "model": run}),
        ("not a readable checkpoint", (), {"images": photos, "model": tmp_path / "none"}),
        ("'0' is not a number", ("--batch", "0"), bare),
    ]
    for said, options, given in cases:
        before = {*tmp_path.rglob("*")}
        status, out, error = predict(*options, **given)
        assert (status, out, error.count("\n")) == (2, "", 1), error
        assert said in error
        assert {*tmp_path.rglob("*")} == before, said


# Images that cannot be read.


def spoil(photos: Path, kind: str, name: str = "bb") -> Path:
    """A file among the photographs that is no image; its name sorts into their middle."""
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2
    content = {
        "text": b"not an image",
        "truncated": (photos / "a.png").read_bytes()[:-500],
        "huge": header + bytes(30),
        "empty": b"",
    }
    path = photos / f"{name}.png"
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("kind", ["text", "truncated", "huge", "empty"])
@pytest.mark.parametrize("batch", ["1", "8"])
def test_a_bad_image_is_named_and_the_others_are_segmented(
    kind: str, batch: str, photos: Path, predict: Predict, tmp_path: Path
) -> None:
    path = spoil(photos, kind)
    status, said, error = predict("--batch", batch, "--quiet", images=photos)
    named, summary = error.splitlines()
    assert (status, said) == (1, "") and named.startswith(f"not segmented: {path}: ")
    assert summary.startswith("error: 1 of 5 images could not be segmented")
    done = contents(tmp_path / "out" / "labelIds")
    assert {*done} == {f"{name}_pred_labelIds.png" for name in ("a", "b", "d", "deep/c")}
    shutil.rmtree(tmp_path / "out")
    path.unlink()
    assert predict("--quiet", images=photos) == (0, "", "")
    assert contents(tmp_path / "out" / "labelIds") == done


def test_only_what_is_missing_is_tried_again(
    photos: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    read_image = running.read_image
    monkeypatch.setattr(
        running, "read_image", lambda path: tried.append(path.stem) or read_image(path)
    )
    paths = [spoil(photos, "text", "aa"), spoil(photos, "empty", "bb"), spoil(photos, "huge", "z")]
    status, said, error = predict(images=photos)
    assert status == 1 and said.endswith("label maps of 4 images\n")
    assert [line.split(": ")[1] for line in error.splitlines() if line.startswith("not")] == [
        str(path) for path in paths
    ]
    assert tried == ["a", "aa", "b", "bb", "d", "c", "z"]
    tried.clear()
    shutil.copy(photos / "a.png", photos / "bb.png")
    paths[2].unlink()
    status, said, error = predict("--batch", "1", images=photos)
    assert tried == ["aa", "bb"]
    assert status == 1 and said.endswith("label maps of 1 image; 4 were there\n")
    assert "error: 1 of 6 images could not" in error
    tried.clear()
    status, said, error = predict(images=photos)
    assert (status, tried) == (1, ["aa"]) and said.endswith(
        "label maps of 0 images; 5 were there\n"
    )


def test_no_usable_image_is_one_line(photos: Path, predict: Predict, tmp_path: Path) -> None:
    folder = tmp_path / "spoiled"
    folder.mkdir()
    shutil.copy(photos / "a.png", folder)
    paths = [spoil(folder, "text", "a"), spoil(folder, "empty", "b")]
    status, said, error = predict("--quiet", images=folder)
    assert (status, said, error.count("\n")) == (2, "", 1)
    assert f"none of 2 images can be segmented; the first: {paths[0]}: unreadable" in error
    assert [*contents(tmp_path / "out")] == ["predictions.json"]
    paths[0].unlink()
    status, _, error = predict("--quiet", images=folder)
    assert status == 2 and error.startswith(f"error: {paths[1]}: unreadable image (an empty file)")


def test_a_thousand_bad_images_between_good_ones_hold_no_picture(
    monkeypatch: pytest.MonkeyPatch, photos: Path, run: Path, tmp_path: Path
) -> None:
    """Lines wait for the next batch at most, and nothing else does."""
    model = fl_ppseg.load(run / ARM)
    bad = spoil(photos, "text")
    images = {
        f"{number:04}": photos / "a.png" if number % 100 == 0 else bad for number in range(1000)
    }
    outputs = running.Outputs(tmp_path / "out", model, ())
    lines: list[str] = []
    counts: list[tuple[int, int]] = []

    def look(done: int, total: int) -> None:
        counts.append((done, len(lines)))

    client = fl_ppseg.Client(model)
    made = running.predict(model, client, images, outputs, 1, look, lines.append)
    assert made == (10, 990) and len(lines) == 990
    assert counts[0] == (0, 0) and counts[1] == (1, 0) and counts[2] == (101, 99)


def test_a_strip_that_padding_would_make_huge_is_named(predict: Predict, tmp_path: Path) -> None:
    """One row of five million pixels, of which the model would read 32 rows."""
    folder = tmp_path / "strips"
    folder.mkdir()
    Image.new("L", (5_000_000, 1)).save(folder / "strip.png")
    Image.new("L", (70, 1)).save(folder / "thin.png")
    model = small_runs.add_checkpoint(tmp_path / "of_frames", ARM, "crop")
    status, _, error = predict("--quiet", images=folder, model=model)
    named, _ = error.splitlines()
    assert status == 1 and named.startswith(f"not segmented: {folder / 'strip.png'}: image of 1 x")
    assert "of which the model reads 32 x 5000000, at most 134 million" in named
    assert read(tmp_path / "out/labelIds/thin_pred_labelIds.png").shape == (1, 70)


def test_a_name_that_leaves_no_room_is_named(photos: Path, predict: Predict) -> None:
    long = photos / f"{'n' * 250}.png"
    shutil.copy(photos / "a.png", long)
    status, _, error = predict("--quiet", images=photos)
    assert status == 1 and f"{long}: a file named after it would have a name of 268 bytes" in error


# Pictures of all kinds.


def test_pictures_of_every_kind_are_read_as_viewers_show_them(
    predict: Predict, tmp_path: Path
) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    rgb = Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8))
    rgb.quantize(16).save(folder / "palette.png")
    rgb.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.full((20, 30), 40_000, np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=exif)
    assert predict("--quiet", images=folder)[0] == 0
    shapes = {path.name: read(path).shape for path in (tmp_path / "out/labelIds").iterdir()}
    assert shapes == {
        "palette_pred_labelIds.png": (20, 30),
        "alpha_pred_labelIds.png": (20, 30),
        "deep_pred_labelIds.png": (20, 30),
        "turned_pred_labelIds.png": (30, 20),
    }


def test_a_full_disk_is_one_line_and_leaves_no_part(
    photos: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = files.write_all

    def full(descriptor: int, content: bytes) -> None:
        if content.startswith(b"\x89PNG"):
            write(descriptor, content[:20])
            raise OSError(28, "No space left on device")
        write(descriptor, content)

    monkeypatch.setattr(files, "write_all", full)
    status, _, error = predict("--quiet", images=photos)
    assert (status, error.count("\n")) == (1, 1) and "no space left on the disk" in error
    assert [*contents(tmp_path / "out")] == ["predictions.json"]


# Export.


def test_an_export_to_a_full_disk_is_one_line_and_leaves_no_part(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = files.write_all

    def full(descriptor: int, content: bytes) -> None:
        write(descriptor, content[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    argv = ["--model", str(run / ARM), "--out", str(tmp_path / "model")]
    assert run_command(export.main, argv) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1) and "no space left on the disk" in said.err
    assert list(tmp_path.iterdir()) == []


def test_export_writes_what_predict_takes(
    photos: Path, run: Path, predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--model", str(run / ARM), "--out", str(tmp_path / "model")]
    assert run_command(export.main, argv) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model'}\n"
    assert predict("--quiet", images=photos, model=tmp_path / "model")[0] == 0
    exported = contents(tmp_path / "out" / "labelIds")
    shutil.rmtree(tmp_path / "out")
    assert predict("--quiet", images=photos)[0] == 0
    assert contents(tmp_path / "out" / "labelIds") == exported
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"schema": 9}))
    shutil.rmtree(tmp_path / "out")
    status, _, error = predict(images=photos, model=tmp_path / "model")
    assert status == 2 and "expected an exported model of schema 1, got 9" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()
    (tmp_path / "model" / "mine").touch()
    assert run_command(export.main, argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
