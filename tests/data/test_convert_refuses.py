"""What a download may hold that is no data set: one line, status 2, and nothing is made."""

import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import downloads as small
import numpy as np
import pytest
from PIL import Image

from fl_ppseg.convert.draft import MARK
from fl_ppseg.system.files import hold_lock

Change = Callable[[Path], object]


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: str) -> str:
    """The one line of a refused call, which made nothing."""
    before = sorted(out.parent.iterdir())
    assert small.convert(out, *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert sorted(out.parent.iterdir()) == before
    return said.err


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return small.two_folders(tmp_path / "source", kind="png")


def mask(pixels: np.ndarray) -> Change:
    return lambda root: small.save(pixels, root / "masks/ulm_1.png")


def turned(root: Path) -> None:
    """A photograph that viewers turn, its mask drawn on the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(small.photograph(50), root / "images/ulm_1.png", exif=exif)


def turned_mask(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    small.save(small.halves(small.RED, small.GREEN), root / "masks/ulm_1.png", exif=exif)


def jpeg_mask(root: Path) -> None:
    Image.fromarray(small.halves(small.RED, small.GREEN)).save(root / "masks/ulm_1.png", "JPEG")


def deep_mask(root: Path) -> None:
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(root / "masks/ulm_1.png")


def linked_photograph(root: Path) -> None:
    (root / "images/ulm_1.png").rename(root / "elsewhere.png")
    (root / "images/ulm_1.png").symlink_to(root / "elsewhere.png")


def renamed(name: str) -> Change:
    """ulm_1 under another name, with its mask."""

    def change(root: Path) -> None:
        for folder in ("images", "masks"):
            target = root / folder / f"{name}.png"
            target.parent.mkdir(exist_ok=True)
            (root / folder / "ulm_1.png").rename(target)

    return change


def twice(root: Path) -> None:
    small.save(small.photograph(60), root / "images/ulm_1.jpg")


def same_in_both(root: Path) -> None:
    small.save(small.photograph(0), root / "images/bonn_1.png")


def nothing(folder: str) -> Change:
    def change(root: Path) -> None:
        for path in (root / folder).iterdir():
            path.unlink()

    return change


def hidden(root: Path) -> None:
    for path in list((root / "images").iterdir()):
        path.rename(path.with_name(f".{path.name}"))


FILES: dict[str, tuple[Change, str]] = {
    "link to a photograph": (linked_photograph, "ulm_1.png: is a link"),
    "link to nothing": (lambda r: (r / "masks/x.png").symlink_to("gone"), "x.png: is a link"),
    "link to a folder": (lambda r: (r / "images/more").symlink_to("/"), "more: is a link"),
    "broken": (lambda r: (r / "images/ulm_1.png").write_bytes(b"\x89PNG"), "unreadable image"),
    "empty": (lambda r: (r / "images/ulm_1.png").write_bytes(b""), "an empty file"),
    "a pipe": (
        lambda r: ((r / "images/ulm_1.png").unlink(), os.mkfifo(r / "images/ulm_1.png")),
        "not a regular file",
    ),
    "broken mask": (lambda r: (r / "masks/ulm_1.png").write_bytes(b"GIF89a"), "unreadable mask"),
    "no mask": (lambda r: (r / "masks/ulm_1.png").unlink(), "1 photograph without a mask: ulm_1"),
    "other size": (mask(small.halves(small.RED, small.GREEN, 6, 8)), "8x6 but its image is 16x12"),
    "turned": (turned, "as its EXIF orientation shows it"),
    "turned mask": (turned_mask, "EXIF orientation turns"),
    "a JPEG as mask": (jpeg_mask, "JPEG of mode RGB"),
    "a mask of 16 bits": (deep_mask, "PNG of mode I;16"),
    "unknown colours": (
        mask(small.halves((1, 2, 3), (255, 255, 255), 12, 16)),
        "2 colours in 1 mask to which two gives no meaning: 010203 (96 pixels), ffffff (96 "
        "pixels); in ulm_1.png",
    ),
    "a photograph as mask": (mask(small.photograph(7)), "10 colours or more in 1 mask"),
    "no photograph": (nothing("images"), "no picture in it"),
    "no masks": (nothing("masks"), "no picture in it"),
    "no place": (renamed("ulm1"), "finds no place in the name of 1 photograph: ulm1"),
    "only hidden photographs": (hidden, "no picture in it"),
    "capitals of a place": (renamed("ULM_1"), "places ULM and ulm differ by capitals"),
    "two of one name": (twice, "has the same name as ulm_1.jpg"),
    "a name of 250 bytes": (renamed("ulm_" + 246 * "x"), "name is too long"),
    "a name that moves the cursor": (renamed("ulm_\x1b[2J"), "cannot be printed"),
    "one photograph in both": (same_in_both, "the same photograph as"),
}
"""What is done to a good source -> the words that the line has."""


@pytest.mark.parametrize("name", FILES)
def test_a_source_that_must_fail(
    name: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = FILES[name]
    change(source)
    assert words in refused(capsys, tmp_path / "tree", *small.folder_options(source))


def test_names_that_some_disks_take_for_one(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("ulm_A", "ulm_a")):
        small.save(small.photograph(70 + number), source / "images" / f"{name}.png")
        small.save(small.halves(small.RED, small.GREEN), source / "masks" / f"{name}.png")
    line = refused(capsys, tmp_path / "tree", *small.folder_options(source))
    assert "both would be ulm/ulm_a in the tree" in line
    for number, name in enumerate(("a/x__1", "a__x/1")):
        small.save(small.photograph(80 + number), tmp_path / f"b/images/{name}.png")
        small.save(small.halves(4, 9), tmp_path / f"b/masks/{name}.png")
    (tmp_path / "b/two.yaml").write_text(small.TABLE)
    options = small.folder_options(tmp_path / "b", place="^(?P<place>a)", val="a", masks_hold="ids")
    line = refused(capsys, tmp_path / "tree", *options)
    assert "both would be a/a__x__1 in the tree" in line


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_places_are_compared_as_a_person_reads_them(
    form: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed(unicodedata.normalize(form, "Köln_1"))(source)
    options = small.folder_options(source, val=unicodedata.normalize("NFD", "köln"))
    assert small.convert(tmp_path / "tree", *options) == 0
    assert (tmp_path / "tree/leftImg8bit/val" / unicodedata.normalize("NFC", "Köln")).is_dir()
    capsys.readouterr()


OPTIONS: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "no such folder": ({"images": "nowhere"}, (), "nowhere: no such folder"),
    "no pattern": ({"place": "(?P<place>["}, (), "not a regular expression"),
    "no group": ({"place": "^([^_]+)_"}, (), "has no group called place"),
    "an endless pattern": ({"place": 2_000 * "x"}, (), "at most 1000 are read"),
    "a place that is none": ({"place": "(?P<place>)"}, (), "finds no place"),
    "a place that leads elsewhere": ({"place": "(?P<place>.*)$", "val": "x"}, (), "no such place"),
    "a val place that is none": ({"val": "berlin"}, (), "no such place; there are bonn, jena, ulm"),
    "no class table": ({"classes": "nowhere"}, (), "unknown class table"),
    "no classes of masks": ({"masks-hold": "names"}, (), "invalid choice"),
    "colours of ids": ({"masks-hold": "ids"}, ("--ignore", "000000"), "--masks-hold ids"),
    "a class ignored": ({}, ("--ignore", "c80000"), "is the colour of a class"),
    "no colour": ({}, ("--ignore", "red"), "expected RRGGBB"),
    "two sizes": ({}, ("--size", "3x3", "--longest-side", "3"), "not allowed with"),
    "a size beyond what is read": ({}, ("--size", "9000x9000"), "at most 67108864 pixels"),
    "no size": ({}, ("--longest-side", "0"), "expected 1 or more"),
    "no workers": ({}, ("--workers", "-1"), "expected 1 or more"),
    "two lines of notice": ({"notice": "a\nb"}, (), "expected one printable line"),
    "an option that is none": ({}, ("--seed", "1"), "unrecognized arguments"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_must_fail(
    name: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, more, words = OPTIONS[name]
    options = small.folder_options(source, *more, **changes)
    assert words in refused(capsys, tmp_path / "tree", *options)


def test_a_place_with_a_slash_is_no_folder(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed("a/ulm_1")(source)
    options = small.folder_options(source, place="^(?P<place>.+)_")
    assert "'a/ulm' is not the name of a folder" in refused(capsys, tmp_path / "tree", *options)


def test_two_classes_of_one_colour_cannot_be_told_apart(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "two.yaml").write_text(small.TABLE.replace("[0, 200, 0]", "[200, 0, 0]"))
    line = refused(capsys, tmp_path / "tree", *small.folder_options(source))
    assert "lawn has the colour c80000 of another class" in line


# Validation shares nothing with training.


def test_places_of_one_area_are_of_one_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    for number, name in enumerate(("a/x", "a/y", "b/z")):
        small.save(small.photograph(number), source / "images" / f"{name}.png")
        small.save(small.halves(4, 9), source / "masks" / f"{name}.png")
    (source / "two.yaml").write_text(small.TABLE)
    place = r"^(?P<area>\w)/(?P<place>\w)"
    options = small.folder_options(source, masks_hold="ids", place=place, val="y")
    line = refused(capsys, tmp_path / "tree", *options)
    assert "val place y and training place x are both of a" in line
    assert "name all of it (x, y) as --val" in line


def test_all_places_cannot_be_scored(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small.folder_options(source)
    line = refused(capsys, tmp_path / "tree", *options, "--val", "bonn", "jena", "ulm")
    assert "no photograph is left for train" in line


@pytest.mark.parametrize(
    ("val", "words"),
    [
        (["boston-june"], "training place boston-april are both of Boston"),
        (["web-street"], "may be of any town"),
        (["unknown"], "may be of any town"),
        (["paris"], "no such place; there are boston-april"),
    ],
)
def test_val_places_of_labelme(
    val: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small.labelme(tmp_path / "source")
    options = ["labelme-facade", str(root), "--val", *val]
    assert words in refused(capsys, tmp_path / "tree", *options)


def test_labelme_of_other_names_or_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small.labelme(tmp_path / "source")
    small.save(small.halves((128, 64, 0), (64, 64, 64)), root / f"labels/{small.FACADES[0]}.png")
    assert "404040 (96 pixels)" in refused(capsys, tmp_path / "tree", "labelme-facade", str(root))
    small.save(small.photograph(9), root / "images/boston.jpg")
    small.save(small.halves((128, 64, 0), (0, 0, 0)), root / "labels/boston.png")
    line = refused(capsys, tmp_path / "tree", "labelme-facade", str(root))
    assert "boston.jpg: not a name of LabelMeFacade" in line


def renumbered(root: Path) -> None:
    """As in older copies of the tutorial."""
    name = min((root / "test").iterdir()).name
    for folder in ("test", "testannot"):
        (root / folder / name).rename(root / folder / "test_00001.png")


def frame_twice(root: Path) -> None:
    for folder in ("test", "train"):
        small.save(small.photograph(200), root / folder / "0001TP_00990.png")
        small.save(small.halves(3, 3), root / f"{folder}annot/0001TP_00990.png")


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (renumbered, [], "test_00001.png: not the name of a CamVid frame"),
        (frame_twice, [], "both would be"),
        (nothing("testannot"), [], "testannot: no picture in it"),
        (lambda r: small.save(small.halves(3, 12), r / "trainannot/0001TP_00000.png"), [],
         "1 value in 1 mask to which camvid gives no meaning: 12 (96 pixels)"),
        (lambda r: None, ["--runs", "2"], "at least one run per drive"),
        (lambda r: None, ["--runs", "17"], "one frame per run"),
        (lambda r: None, ["--val", "0007XX"], "no such drive"),
        (lambda r: None, ["--val", *small.DRIVES], "no photograph is left for train"),
    ],
)  # fmt: skip
def test_camvid_that_must_fail(
    change: Change,
    options: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = small.camvid(tmp_path / "source")
    change(root)
    arguments = ["camvid", str(root), *(options or ["--runs", "3"])]
    assert words in refused(capsys, tmp_path / "tree", *arguments)


# Where it goes.


def test_what_is_there_already_is_left_alone(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small.folder_options(source)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/note").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for name in ("file", "folder", "link"):
        assert "exists already" in refused(capsys, tmp_path / name, *options)
    assert (tmp_path / "folder/note").read_text() == "mine"
    assert small.convert(tmp_path / "empty", *options) == 0
    before = dict(small.files(tmp_path / "empty"))
    capsys.readouterr()
    assert "exists already" in refused(capsys, tmp_path / "empty", *options)
    assert dict(small.files(tmp_path / "empty")) == before


@pytest.mark.parametrize("out", ["images/tree", "masks", "."])
def test_a_tree_does_not_lie_in_its_source(
    out: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(small.files(source))
    assert small.convert(source / out, *small.folder_options(source)) == 2
    assert "must not contain each other" in capsys.readouterr().err
    assert dict(small.files(source)) == before


def test_a_place_that_cannot_be_written(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert small.convert(tmp_path / "file/tree", *small.folder_options(source)) == 2
    assert "nothing can be written there" in capsys.readouterr().err


def test_drafts_of_others_are_left_alone(source: Path, tmp_path: Path) -> None:
    """What a killed call left goes; what is of another tree, or only looks like it, stays."""
    for name, of in ((".aa.tmp", "tree"), (".bb.tmp", "another"), (".cc.tmp", None)):
        (tmp_path / name).mkdir()
        if of is not None:
            (tmp_path / name / MARK).write_text(of)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / MARK).write_text("tree")
    (tmp_path / ".dd.tmp").symlink_to(tmp_path / "kept")
    assert small.convert(tmp_path / "tree", *small.folder_options(source)) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"source", "tree", ".bb.tmp", ".cc.tmp", ".dd.tmp", "kept"}
    assert (tmp_path / "kept" / MARK).exists()


def test_what_came_meanwhile_is_not_replaced(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "tree"

    @contextmanager
    def late(path: Path) -> Iterator[None]:
        with hold_lock(path):
            out.mkdir()
            (out / "theirs").write_text("")
            yield

    monkeypatch.setattr("fl_ppseg.convert.draft.hold_lock", late)
    assert small.convert(out, *small.folder_options(source)) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["theirs"]
