"""Images from anywhere: bounded before they are decoded, refused in one line, shown upright."""

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import must_fail
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from small_tree import pixels

from fl_ppseg.data import image_files
from fl_ppseg.data.image_files import declared_size, exif_orientation, read_image
from fl_ppseg.system.errors import InputError


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.filterwarnings("error")
@must_fail.of("image_headers")
def test_images_that_must_fail_do_in_one_line(vector: must_fail.Vector, tmp_path: Path) -> None:
    path = tmp_path / "x_leftImg8bit.png"
    path.write_bytes(vector.content)
    assert vector.error in refusal(path)


def test_the_control_of_the_vectors_is_read(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").transpose(1, 2, 0), pixels())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def black_png(side: int) -> bytes:
    """A whole PNG of so many pixels in hardly any bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packer, rows = zlib.compressobj(9), b""
    for _ in range(side):
        rows += packer.compress(bytes(1 + 3 * side))
    rows += packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_png_of_169_million_pixels_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    """As the attack: half a megabyte that decodes to 3 GB, within a process of less."""
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(black_png(13_000))
    assert bomb.stat().st_size < 600_000
    script = (
        "import resource, sys; from pathlib import Path"
        "\nfrom fl_ppseg.data.image_files import read_image"
        "\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
        "\ntry: read_image(Path(sys.argv[1]))"
        "\nexcept Exception as error: print(type(error).__name__, error)"
        "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(bomb)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(image_files.__file__).parents[2])},
    )
    said, grown = done.stdout.strip().splitlines()
    assert said.startswith("InputError") and "13000x13000 pixels" in said and done.stderr == ""
    assert int(grown) * (1 if sys.platform == "linux" else 1 / 1024) < 50_000  # KiB
    assert time.monotonic() - begin < 20


def test_a_file_of_more_bytes_than_any_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(pixels()).save(path)
    size = path.stat().st_size
    monkeypatch.setattr(image_files, "MAX_BYTES", size)
    read_image(path)
    monkeypatch.setattr(image_files, "MAX_BYTES", size - 1)
    assert f"{size} bytes, at most {size - 1} are read" in refusal(path)
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no disk
    assert "are read" in refusal(path)


def test_pipes_folders_and_lost_links_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "folder.png")
    for name in ("lost.png", "loop.png", "none.png"):
        assert "unreadable image" in refusal(tmp_path / name)


def test_a_link_to_an_image_is_followed(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "x.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "link.png"), read_image(tmp_path / "x.png"))


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_exif_orientation_is_applied_as_pillow_does(
    turned: int, kind: str, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    path = tmp_path / f"x.{kind}"
    Image.fromarray(pixels()).save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(read_image(path).transpose(1, 2, 0), expected)


def test_an_orientation_behind_the_pixels_counts_too(tmp_path: Path) -> None:
    """Where eXIf stands after IDAT, as the PNG specification allows."""
    path = tmp_path / "x.png"
    Image.fromarray(pixels()).save(path)
    exif = Image.Exif()
    exif[0x0112] = 3
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(content[:end] + chunk(b"eXIf", body) + content[end:])
    np.testing.assert_array_equal(read_image(path).transpose(1, 2, 0), pixels()[::-1, ::-1])


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda body: b"II*\0\x08\0\0\0" + body))
def test_any_exif_bytes_give_an_orientation(exif: bytes) -> None:
    assert 1 <= exif_orientation(exif) <= 8


@given(st.binary(max_size=200).map(lambda body: b"\xff\xd8" + body))
def test_any_jpeg_bytes_give_a_size_or_none(data: bytes) -> None:
    found = declared_size(data)
    assert found is None or min(found) >= 0


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": bytes(5000)}])
def test_the_size_of_a_jpeg_is_read_from_its_header(options: dict, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(np.zeros((33, 77, 3), np.uint8)).save(path, **options)
    assert declared_size(path.read_bytes()) == (77, 33)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_16_bits_the_upper_8_stay_and_transparency_is_dropped(
    colour_type: int, channels: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**16, (5, 6, channels), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 6, 5, 16, colour_type, 0, 0, 0)
    path = tmp_path / "x.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    colours = values[..., : 3 if channels > 2 else 1] >> 8
    expected = np.broadcast_to(colours, (5, 6, 3))
    np.testing.assert_array_equal(read_image(path).transpose(1, 2, 0), expected)


def test_a_photograph_with_previews_behind_it_is_its_first_picture(tmp_path: Path) -> None:
    first, preview = Image.fromarray(pixels()), Image.fromarray(255 - pixels())
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[preview], quality=95)
    found = read_image(tmp_path / "x.jpg").transpose(1, 2, 0).astype(int)
    assert np.abs(found - pixels()).mean() < 8
