"""Files are whole or absent, whatever stops the writer."""

import errno
import hashlib
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fl_ppseg.system import files
from fl_ppseg.system.errors import InputError, describe
from fl_ppseg.system.files import (
    check_writable,
    hold_lock,
    make_folders,
    make_private_folder,
    replacing,
    replacing_folder,
    sha256,
    user_folder,
    write_atomically,
)


class PowerCutError(BaseException):
    """Stands for anything that stops a writer half way."""


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", ["größer\n", b"\x00\xff"])
def test_content_is_what_was_given(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_atomically(path, content)
    expected = content if isinstance(content, bytes) else content.encode("utf-8")
    assert entries(tmp_path) == {"file": expected}


@pytest.mark.parametrize("wanted", [0o600, 0o644])
def test_mode_holds_from_the_first_byte(
    tmp_path: Path, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o666)
    seen = []

    def looking(number: int) -> None:
        seen.extend(mode(found) for found in tmp_path.iterdir() if found != path)

    monkeypatch.setattr(os, "fsync", looking)
    previous = os.umask(0o022)
    try:
        write_atomically(path, "new", wanted)
    finally:
        os.umask(previous)
    assert seen == [wanted]
    assert mode(path) == wanted


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_cut_while_writing_leaves_the_old_content(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def cut(*_: object) -> None:
        raise PowerCutError

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], cut)
    with pytest.raises(PowerCutError):
        write_atomically(path, "new")
    assert entries(tmp_path) == {"file": b"old"}


def test_a_full_disk_leaves_the_old_content_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as failure:
        write_atomically(path, "new")
    assert f"no space left on the disk while writing {path};" in describe(failure.value)
    assert entries(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("lasting", [True, False])
def test_neither_content_nor_name_is_lost_to_a_power_cut(
    lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content is on disk before it gets its name, the folder's new name before the return."""
    path, events = tmp_path / "file", list[object]()
    replace = Path.replace

    def synced(number: int) -> None:
        found = Path(f"/proc/self/fd/{number}").readlink()
        events.append((found.read_text() if found.is_file() else found, path.exists()))

    def replaced(source: Path, target: Path) -> Path:
        events.append("replace")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    write_atomically(path, "new", lasting=lasting)
    assert events == [("new", False), "replace", (tmp_path, True)][: 2 + lasting]


@pytest.mark.parametrize("place", ["here", "new/folder", "file", "file/folder", "/proc/folder"])
def test_whether_a_folder_can_be_written_is_found_out_without_a_trace(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()
    before = sorted(tmp_path.rglob("*"))
    if place in ("here", "new/folder"):
        check_writable(tmp_path / place)
    else:
        with pytest.raises(InputError, match=r"nothing can be written there .* another folder"):
            check_writable(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_others_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        check_writable(tmp_path / "folder")


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert entries(tmp_path) == {"file": b"new"}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("1")
        assert not folder.exists()
    assert entries(tmp_path) == {"a": b"1"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_cut_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("old")

    with pytest.raises(PowerCutError), replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
        raise PowerCutError
    assert entries(folder) == {"a": b"old"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_replaces_all_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "left over").write_text("old")
    with replacing_folder(folder) as temporary:
        (temporary / "a").write_text("new")
    assert entries(tmp_path) == {"a": b"new"}


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    """FIPS 180-2, appendix B.1: the digest of `abc`."""
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"x" * 10**6)
    assert sha256(path) == hashlib.sha256(b"x" * 10**6).hexdigest()


def test_user_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = tmp_path / "cache" / "fl_ppseg" / "scenes"
    assert user_folder("scenes", "XDG_CACHE_HOME", ".cache") == expected
    monkeypatch.setattr(files.Path, "home", lambda: tmp_path)
    for unset in ("", None):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if unset is not None:
            monkeypatch.setenv("XDG_CACHE_HOME", unset)
        expected = tmp_path / ".cache" / "fl_ppseg" / "scenes"
        assert user_folder("scenes", "XDG_CACHE_HOME", ".cache") == expected


def test_a_private_folder_is_made_or_tightened(tmp_path: Path) -> None:
    assert mode(make_private_folder(tmp_path / "new" / "folder")) == 0o700
    (tmp_path / "old").mkdir()
    (tmp_path / "old").chmod(0o755)
    assert mode(make_private_folder(tmp_path / "old")) == 0o700


def test_a_folder_of_another_user_or_shared_by_all_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    with pytest.raises(InputError, match="choose another folder"):
        make_private_folder(tmp_path / "shared")
    for closed in (0o755, 0o700):  # closed to all but its owner, it is its owner's all the same
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other").chmod(closed)
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
            with pytest.raises(InputError, match="belongs to"):
                make_private_folder(tmp_path / "other")
        assert mode(tmp_path / "other") == closed


def test_a_private_folder_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(InputError, match=r"anybody may write there \(mode 0777\)"):
        make_private_folder(tmp_path / "open" / "vault")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_folder_that_is_made_is_open_to_writers(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_private_folder(tmp_path / "a" / "b" / "c")
        write_atomically(tmp_path / "d" / "e" / "public", "x")
        write_atomically(tmp_path / "f" / "g" / "secret", "x", mode=0o600)
        make_folders(tmp_path / "h" / "i")
        with replacing_folder(tmp_path / "j" / "k"), hold_lock(tmp_path / "l" / "lock"):
            pass
    finally:
        os.umask(before)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert len(folders) == 12 and not [path for path in folders if mode(path) & 0o022]
    assert {mode(tmp_path / name) for name in ("a/b/c", "f", "f/g")} == {0o700}


def test_temporary_names_cannot_be_foreseen_and_no_link_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, names = tmp_path / "victim", list[str]()
    victim.write_text("whole")
    folder = tmp_path / "folder"
    folder.mkdir()
    link = os.open

    def planted(name: "str | Path", flags: int, *rest: int, **options: int) -> int:
        """Whoever may write here is as quick as can be: a link stands there before the file."""
        if Path(name).name.endswith(".tmp"):
            names.append(Path(name).name)
            Path(name).symlink_to(victim)
        return link(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", planted)
    for _ in range(20):
        with pytest.raises(FileExistsError):
            write_atomically(folder / "policy.yaml", "new")
    assert victim.read_text() == "whole" and not (folder / "policy.yaml").exists()
    assert len(set(names)) == 20 and all(len(name) > 32 for name in names)


HOLDER = """
import sys, time
from pathlib import Path
from fl_ppseg.system.files import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    print("left", flush=True)
"""


def holder(path: Path, seconds: float) -> "subprocess.Popen[str]":
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path / "new" / "lock", 2) as process:
        begin = time.monotonic()
        with hold_lock(tmp_path / "new" / "lock"):
            assert time.monotonic() - begin > 0.5
        assert process.communicate()[0] == "left\n"
    assert list((tmp_path / "new").iterdir()) == []


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path / "lock", 60) as process:
        process.kill()
        process.wait()
        assert (tmp_path / "lock").exists()
        with hold_lock(tmp_path / "lock"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_many_take_a_lock_that_its_holders_remove(tmp_path: Path) -> None:
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(100):
            with hold_lock(tmp_path / "lock"):
                inside.append(number)
                assert inside == [number]
                inside.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert list(tmp_path.iterdir()) == []
