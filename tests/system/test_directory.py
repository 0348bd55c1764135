"""Folders held by descriptor: nobody but root and the caller can lead a path elsewhere."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fl_ppseg.system import atomic_file, trusted_path
from fl_ppseg.system.directory import Directory
from fl_ppseg.system.errors import InputError

STRANGER = 54321
IS_ROOT = os.geteuid() == 0

Estrange = Callable[[Path], None]


@pytest.fixture
def estrange(monkeypatch: pytest.MonkeyPatch) -> Estrange:
    """Makes a file, folder or link somebody else's; without root, in the eyes of our code."""
    strangers: set[tuple[int, int]] = set()

    def chown(path: Path) -> None:
        os.chown(path, STRANGER, -1, follow_symlinks=False)

    def pretend(path: Path) -> None:
        found = path.lstat()
        strangers.add((found.st_dev, found.st_ino))

    if IS_ROOT:
        return chown
    for name in ("stat", "fstat"):
        real = getattr(os, name)

        def seen(*args: object, _real: Callable[..., os.stat_result] = real, **named: object):  # type: ignore[no-untyped-def]
            found = _real(*args, **named)
            if (found.st_dev, found.st_ino) not in strangers:
                return found
            return os.stat_result((*found[:4], STRANGER, *found[5:]))

        monkeypatch.setattr(os, name, seen)
    return pretend


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def opened(path: Path, **options: object) -> bool:
    """Whether a folder is opened at all, and as itself."""
    with Directory.open(path, **options) as folder:  # type: ignore[arg-type]
        return os.path.samestat(os.fstat(folder.descriptor), path.stat())


@pytest.mark.parametrize(
    "form", ["absolute", "relative", "dots", "through a link", "trailing link"]
)
def test_folders_of_ones_own_are_opened(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "own link").symlink_to("a")
    (tmp_path / "far link").symlink_to(tmp_path / "own link" / "b")
    monkeypatch.chdir(tmp_path / "a")
    path = {
        "absolute": tmp_path / "a" / "b",
        "relative": Path("b"),
        "dots": Path("./b/../../a//b/."),
        "through a link": tmp_path / "own link" / "b",
        "trailing link": tmp_path / "far link",
    }[form]
    assert opened(path)
    with Directory.open(path) as folder:
        folder.write("file", "here")
    assert (tmp_path / "a" / "b" / "file").read_text() == "here"


def test_a_folder_on_the_way_that_is_somebody_elses_is_refused(
    tmp_path: Path, estrange: Estrange
) -> None:
    (tmp_path / "theirs" / "mine").mkdir(parents=True)
    assert opened(tmp_path / "theirs" / "mine")
    estrange(tmp_path / "theirs")
    for path in (tmp_path / "theirs" / "mine", tmp_path / "theirs"):
        with pytest.raises(InputError, match=rf"^{tmp_path}/theirs: belongs to user {STRANGER}"):
            Directory.open(path)
    assert opened(tmp_path / "theirs" / "mine", owners=[STRANGER])


def test_a_link_of_somebody_else_is_refused_wherever_it_leads(
    tmp_path: Path, estrange: Estrange
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    assert opened(tmp_path / "link")
    estrange(tmp_path / "link")
    with pytest.raises(InputError, match=rf"^{tmp_path}/link: is a link of user {STRANGER}"):
        Directory.open(tmp_path / "link")


def test_a_link_into_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, estrange: Estrange
) -> None:
    (tmp_path / "theirs" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to("theirs/folder")
    estrange(tmp_path / "theirs")
    with pytest.raises(InputError, match=rf"^{tmp_path}/theirs: belongs to"):
        Directory.open(tmp_path / "link")


def test_dots_after_a_link_mean_the_parent_of_its_target(
    tmp_path: Path, estrange: Estrange
) -> None:
    (tmp_path / "theirs" / "mine").mkdir(parents=True)
    (tmp_path / "link").symlink_to("theirs/mine")
    estrange(tmp_path / "theirs" / "mine")
    with pytest.raises(InputError, match=rf"^{tmp_path}/theirs/mine: belongs to"):
        Directory.open(tmp_path / "link" / "..")


@pytest.mark.parametrize("wrong", [0o777, 0o757])
def test_a_folder_that_anybody_may_write_is_refused(wrong: int, tmp_path: Path) -> None:
    (tmp_path / "open" / "mine").mkdir(parents=True)
    (tmp_path / "open").chmod(wrong)
    with pytest.raises(InputError, match=rf"^{tmp_path}/open: anybody may write there \(mode 0"):
        Directory.open(tmp_path / "open" / "mine")
    (tmp_path / "open").chmod(wrong | stat.S_ISVTX)
    assert opened(tmp_path / "open" / "mine")


def test_a_group_may_write_where_it_is_the_callers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a umask of 002 makes, which many systems have by default."""
    tmp_path.chmod(0o775)
    members: dict[str, object] = {"gr_mem": [], "gr_name": "users"}
    users = [type("User", (), {"pw_uid": os.geteuid(), "pw_gid": tmp_path.stat().st_gid})()]
    group = type("Group", (), members)
    monkeypatch.setattr(trusted_path.grp, "getgrgid", lambda number: group)
    monkeypatch.setattr(trusted_path.pwd, "getpwall", lambda: users)
    assert opened(tmp_path)
    users.append(type("User", (), {"pw_uid": STRANGER, "pw_gid": tmp_path.stat().st_gid})())
    with pytest.raises(InputError, match="the group users may write there"):
        Directory.open(tmp_path)
    users.pop()
    group.gr_mem = ["somebody-else"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="the group users may write there"):
        Directory.open(tmp_path)


def test_links_that_lead_nowhere_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        Directory.open(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/gone"):
        Directory.open(tmp_path / "gone" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=f"{tmp_path}/file"):
        Directory.open(tmp_path / "file" / "b")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(umask: int, tmp_path: Path) -> None:
    previous = os.umask(umask)
    try:
        with Directory.open(tmp_path / "new" / "folder", make=0o750) as folder:
            folder.make_child("private").close()
            folder.make_child("shared", 0o755).close()
            folder.write("secret", b"")
            folder.write("public", b"", 0o644)
            folder.write("once", b"", exclusive=True)
    finally:
        os.umask(previous)
    new = tmp_path / "new"
    assert mode(new) == 0o755 & ~umask
    found = {path.name: mode(path) for path in new.rglob("*")}
    expected = {"folder": 0o750, "private": 0o700, "shared": 0o755}
    assert found == expected | {"secret": 0o600, "public": 0o644, "once": 0o600}


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(0o711)
    with Directory.open(tmp_path) as here, here.make_child("folder", 0o700):
        pass
    Directory.open(tmp_path / "folder", make=0o700).close()
    assert mode(tmp_path / "folder") == 0o711


@pytest.mark.skipif(not IS_ROOT, reason="only root may give folders to any group")
def test_a_group_is_given_before_the_permissions(tmp_path: Path) -> None:
    with Directory.open(tmp_path) as here:
        here.make_child("folder", 0o750, group=STRANGER).close()
        here.write("file", b"", 0o640, group=STRANGER)
        with here.child("folder") as folder:
            folder.chown(STRANGER, mode=0o700)
    folder, file = (tmp_path / "folder").stat(), (tmp_path / "file").stat()
    assert (folder.st_uid, folder.st_gid, mode(tmp_path / "folder")) == (STRANGER, STRANGER, 0o700)
    assert (file.st_gid, mode(tmp_path / "file")) == (STRANGER, 0o640)


def test_no_link_inside_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "thesis.tex").write_text("three years")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "folder").symlink_to(victim)
    (tmp_path / "here" / "file").symlink_to(victim / "thesis.tex")
    with Directory.open(tmp_path / "here") as here:
        assert [(found.name, found.kind) for found in here.entries()] == [
            ("file", "link"),
            ("folder", "link"),
        ]
        for refused in (
            lambda: here.child("folder"),
            lambda: here.make_child("folder"),
            lambda: here.remove_tree("folder"),
            lambda: here.read("file", 100),
        ):
            with pytest.raises(InputError, match="is a link"):
                refused()
        with pytest.raises(FileExistsError):
            here.write("file", "mine", exclusive=True)
        here.write("file", "mine")
        here.remove("folder")
    assert (tmp_path / "here" / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["file"]
    assert (victim / "thesis.tex").read_text() == "three years"


def test_a_tree_goes_but_not_what_its_links_mean(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.tex").write_text("three years")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "link").symlink_to(tmp_path / "victim")
    (tmp_path / "tree" / "file").write_text("")
    with Directory.open(tmp_path) as here:
        here.remove_tree("tree")
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/tree"):
            here.remove_tree("tree")
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "victim" / "thesis.tex").read_text() == "three years"


def test_what_is_done_is_done_in_the_folder_that_was_opened(tmp_path: Path) -> None:
    """A lesser user renames the folder and puts a link in its place: nothing goes through it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "folder").mkdir()
    with Directory.open(tmp_path / "folder") as folder:
        (tmp_path / "folder").rename(tmp_path / "moved")
        (tmp_path / "folder").symlink_to("victim")
        folder.write("file", b"content")
        folder.make_child("child").close()
    assert list((tmp_path / "victim").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["child", "file"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../victim", "a\0b"])
def test_names_are_single_ones(name: str, tmp_path: Path) -> None:
    with Directory.open(tmp_path) as here:
        for refused in (
            lambda: here.child(name),
            lambda: here.make_child(name),
            lambda: here.read(name, 10),
            lambda: here.write(name, b""),
            lambda: here.remove(name),
            lambda: here.remove_tree(name),
            lambda: here.move_in(here, name),
        ):
            with pytest.raises(InputError, match="expected the plain name of a file"):
                refused()
    assert list(tmp_path.iterdir()) == []


def test_reading_is_bounded_and_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    with Directory.open(tmp_path) as here:
        assert here.read("file", 5) == b"12345"
        with pytest.raises(InputError, match=r"at most 4 bytes, got more"):
            here.read("file", 4)
        with pytest.raises(InputError, match="expected a file"):
            here.read("pipe", 4)
        with pytest.raises(FileNotFoundError, match=f"{tmp_path}/gone"):
            here.read("gone", 4)


def test_a_file_is_ones_own_where_that_is_wanted(tmp_path: Path, estrange: Estrange) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o600)
    with Directory.open(tmp_path) as here:
        assert here.read("file", 5, own=True) == b"12345"
        (tmp_path / "file").chmod(0o620)
        with pytest.raises(InputError, match="others may write it"):
            here.read("file", 5, own=True)
        (tmp_path / "file").chmod(0o600)
        estrange(tmp_path / "file")
        with pytest.raises(InputError, match=f"belongs to user {STRANGER}"):
            here.read("file", 5, own=True)


@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "random name"])
def test_an_exclusive_file_replaces_nothing_and_leaves_nothing(
    unnamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unnamed and not hasattr(os, "O_TMPFILE"):
        pytest.skip("no unnamed files on this system")
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    seen = list[list[str]]()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda n: (seen.append(names_in(tmp_path)), fsync(n))[1])
    with Directory.open(tmp_path) as here:
        here.write("key", b"mine", exclusive=True)
        with pytest.raises(FileExistsError, match=f"{tmp_path}/key"):
            here.write("key", b"other", exclusive=True)
    assert (tmp_path / "key").read_bytes() == b"mine"
    assert names_in(tmp_path) == ["key"]
    assert (seen[0] == []) is unnamed  # what a kill would have left


def test_without_hard_links_a_file_is_exclusive_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(atomic_file.os, "link", refused)
    with Directory.open(tmp_path) as here:
        here.write("key", b"mine", exclusive=True)
        with pytest.raises(FileExistsError):
            here.write("key", b"other", exclusive=True)
    assert names_in(tmp_path) == ["key"]
    assert (tmp_path / "key").read_bytes() == b"mine"


def test_temporary_names_are_not_to_be_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, rename = set[str](), os.rename

    def renamed(source: str, target: str, **options: int) -> None:
        seen.add(source)
        rename(source, target, **options)

    monkeypatch.setattr(atomic_file.os, "rename", renamed)
    with Directory.open(tmp_path) as here:
        for number in range(20):
            here.write("file", str(number))
    assert len(seen) == 20
    assert all(len(name) >= 32 and str(os.getpid()) not in name[:9] for name in seen)


def test_a_full_disk_leaves_the_old_content_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Directory.open(tmp_path) as here:
        here.write("file", b"old")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as failure:
            here.write("file", b"new")
    assert failure.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("far", [False, True], ids=["same file system", "another one"])
def test_a_folder_is_taken_over_whole(
    far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "tree" / "deep").mkdir(parents=True)
    target.mkdir()
    (source / "tree").chmod(0o750)
    (source / "tree" / "deep" / "file").write_bytes(b"x" * 3_000_000)
    (source / "tree" / "deep" / "file").chmod(0o640)
    if far:
        across(source, target, monkeypatch)
    with Directory.open(source) as old, Directory.open(target) as new:
        new.move_in(old, "tree")
    assert list(source.iterdir()) == []
    assert (target / "tree" / "deep" / "file").read_bytes() == b"x" * 3_000_000
    assert mode(target / "tree") == 0o750
    assert mode(target / "tree" / "deep" / "file") == 0o640
    assert names_in(target) == ["tree"]


def across(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have two folders behave as if they lay on two file systems."""
    rename, apart = os.rename, {source.stat().st_ino, target.stat().st_ino}

    def renamed(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if {os.fstat(src_dir_fd).st_ino, os.fstat(dst_dir_fd).st_ino} == apart:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", renamed)


@pytest.mark.parametrize("far", [False, True], ids=["same file system", "another one"])
def test_what_is_there_is_not_replaced_by_a_move(
    far: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("from", "to"):
        (tmp_path / folder / "tree").mkdir(parents=True)
    (tmp_path / "victim").mkdir()
    if far:
        across(tmp_path / "from", tmp_path / "to", monkeypatch)
    with Directory.open(tmp_path / "from") as old, Directory.open(tmp_path / "to") as new:
        with pytest.raises(FileExistsError):
            new.move_in(old, "tree")
        (tmp_path / "to" / "tree").rmdir()
        (tmp_path / "to" / "tree").symlink_to(tmp_path / "victim")
        with pytest.raises(FileExistsError):
            new.move_in(old, "tree")
    assert list((tmp_path / "victim").iterdir()) == []


def test_a_link_does_not_cross_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "from" / "tree").mkdir(parents=True)
    (tmp_path / "to").mkdir()
    (tmp_path / "from" / "tree" / "link").symlink_to("/etc/passwd")
    across(tmp_path / "from", tmp_path / "to", monkeypatch)
    with (
        Directory.open(tmp_path / "from") as old,
        Directory.open(tmp_path / "to") as new,
        pytest.raises(InputError, match="expected only files and folders"),
    ):
        new.move_in(old, "tree")
    assert names_in(tmp_path / "to") == []
    assert names_in(tmp_path / "from") == ["tree"]


RACE = """
import os, sys
here, victim = sys.argv[1:]
os.chdir(here)
while True:
    try:
        os.rename("folder", "away"); os.symlink(victim, "folder")
        os.unlink("folder"); os.rename("away", "folder")
    except OSError:
        pass
"""


def test_nothing_is_done_through_a_link_that_comes_and_goes(tmp_path: Path) -> None:
    """An attacker who swaps the child for a link as fast as he can: ours or an error, no more."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "here" / "folder").mkdir(parents=True)
    arguments = [str(tmp_path / "here"), str(tmp_path / "victim")]
    attacker = subprocess.Popen([sys.executable, "-c", RACE, *arguments])
    done = refused = 0
    try:
        with Directory.open(tmp_path / "here") as here:
            while done + refused < 2000:
                try:
                    with here.child("folder") as folder:
                        folder.write("file", b"x", lasting=False)
                    done += 1
                except (InputError, OSError):
                    refused += 1
    finally:
        attacker.kill()
        attacker.wait()
    assert list((tmp_path / "victim").iterdir()) == []
