"""A node folder in hostile hands: whatever lies in it, the owner's commands harm nothing of theirs.

Whoever has the node folder (a rented machine, the node's app) may have put links, records, drafts,
names and paths into it; and `--out` may name any folder by mistake.
"""

import grp
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
from small_owner import Owner, fails, files_in

from fl_ppseg.data.shard import open_shard
from fl_ppseg.system.errors import InputError

STRANGER = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def owner(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Owner:
    return Owner(scenes, tmp_path, capsys)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that is none of ours."""
    home = tmp_path / "home"
    (home / "alice").mkdir(parents=True)
    (home / "alice" / "thesis.tex").write_text("three years")
    return home


def everything(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content of all that lies in a folder, links as they are."""
    return {
        str(path.relative_to(folder)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() and not path.is_symlink() else None,
        )
        for path in (folder, *sorted(folder.rglob("*")))
    }


def commands(owner: Owner) -> dict[str, tuple[int, str, str]]:
    """What each command that enters a node folder says of it, one after the other."""
    found = {"encrypt": owner.encrypt(), "dry run": owner.encrypt("--dry-run")}
    found["withdraw"] = owner.keys("withdraw", "--node", owner.node)
    found["verify"] = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    found["show"] = owner.keys("show", "--node", owner.node)
    found["decrypt"] = owner.decrypt("per-image-derived")
    return found


# Links.


@pytest.mark.parametrize("kind", ["shards", "private"])
@pytest.mark.parametrize("target", ["vaults", "home"])
def test_a_link_in_place_of_a_folder_is_refused_and_not_followed(
    kind: str, target: str, owner: Owner, home: Path
) -> None:
    """The owner's own encrypt deleted the vault through it; withdraw deleted /home."""
    owner.ready()
    shutil.rmtree(owner.node / kind)
    (owner.node / kind).symlink_to(owner.vaults if target == "vaults" else home)
    before = everything(owner.vaults), everything(home)
    for name, outcome in commands(owner).items():
        fails(outcome, f"{owner.node / kind}: is a link")
        assert (everything(owner.vaults), everything(home)) == before, name


@pytest.mark.parametrize(
    "place",
    ["policy.yaml", "owner.json", "shards/x", "private/y", "shards/*/leftImg8bit/train/aachen.npy"],
)
def test_a_link_anywhere_in_the_folder_is_refused(place: str, owner: Owner, home: Path) -> None:
    owner.ready()
    (path, *_) = [*owner.node.glob(place), owner.node / place]
    path.unlink(missing_ok=True)
    path.symlink_to(home / "alice" / "thesis.tex")
    before = everything(home)
    for outcome in commands(owner).values():
        fails(outcome, "is a link")
    assert everything(home) == before


def test_temporary_names_that_were_foreseen_are_not_written_through(
    owner: Owner, home: Path
) -> None:
    owner.ready()
    victim = home / "alice" / "thesis.tex"
    (owner.node / f".policy.yaml.{os.getpid()}.tmp").symlink_to(victim)
    owner.configure(data={"image_size": [32, 64], "num_views": 1})
    owner.encrypt()
    owner.keys("withdraw", "--node", owner.node)
    assert victim.read_text() == "three years"
    assert not (owner.node / "policy.yaml").is_symlink()


@needs_root
def test_a_node_folder_on_a_way_that_others_can_turn_is_refused(owner: Owner, home: Path) -> None:
    owner.ready()
    before = everything(home)
    (owner.place / "way").symlink_to(home)
    os.chown(owner.place / "way", STRANGER, -1, follow_symlinks=False)
    theirs = owner.place / "theirs"
    theirs.mkdir()
    os.chown(theirs, STRANGER, -1)
    for place, reason in (("way", "is a link of user 54321"), ("theirs", "belongs to user 54321")):
        owner.node = owner.place / place / "node"
        for outcome in (owner.encrypt(), owner.keys("withdraw", "--node", owner.node)):
            fails(outcome, f"{owner.place / place}: {reason}")
    assert everything(home) == before and list(theirs.iterdir()) == []


@needs_root
def test_a_node_folder_that_was_given_to_its_apps_user_is_refused(owner: Owner) -> None:
    """What the walk-through once said; its user could have put anything into it."""
    owner.ready()
    for path in (owner.node, *owner.node.rglob("*")):
        os.chown(path, STRANGER, -1)
    before = everything(owner.node)
    for outcome in commands(owner).values():
        fails(outcome, f"{owner.node}: belongs to user {STRANGER}, who could replace what lies in")
    assert everything(owner.node) == before


# Any folder for --out.


@pytest.mark.parametrize("name", ["private", "shards", "src"])
def test_a_folder_of_something_else_is_left_alone(name: str, owner: Owner) -> None:
    """`--out ~/project` removed all that lay in its own `private` or `shards`."""
    project = owner.place / "project"
    for path in (".ssh/id_ed25519", "tax/return.pdf", "note.txt"):
        (project / name / path).parent.mkdir(parents=True, exist_ok=True)
        (project / name / path).write_text("mine")
    project.chmod(0o755)
    owner.node = project
    assert owner.keys("new")[0] == 0
    before = everything(project)
    for _ in range(2):
        fails(owner.encrypt(), f"{project}: is not empty and not a node folder")
        fails(owner.encrypt("--dry-run"), "choose a new or empty folder")
    fails(owner.keys("withdraw", "--node", project), "not a node folder (owner.json is missing)")
    assert everything(project) == before


def test_an_empty_folder_of_ones_own_becomes_a_node_folder(owner: Owner) -> None:
    owner.node.mkdir(mode=0o755)
    owner.ready()
    assert stat.S_IMODE(owner.node.stat().st_mode) == 0o700
    marker = json.loads((owner.node / "owner.json").read_text())
    assert marker == {"schema": 2, "client": "aachen"}


def test_what_the_vault_did_not_hand_over_is_never_removed(owner: Owner, home: Path) -> None:
    owner.ready()
    foreign = [owner.node / "private" / ".ssh", owner.node / "shards" / ("ab" * 16)]
    for folder in foreign:
        shutil.copytree(home / "alice", folder)
    owner.configure(data={"image_size": [32, 64], "num_views": 1})  # other shards take their place
    assert owner.encrypt()[0] == 0
    assert len(list((owner.node / "shards").iterdir())) == 4
    for folder in foreign:
        assert (folder / "thesis.tex").exists()
    outcome = owner.call("verify", "--node", owner.node)
    fails(outcome, f"2 problem(s), the first: {foreign[0]}: not named in the policy", status=1)
    status, out, _ = owner.keys("withdraw", "--node", owner.node)
    assert status == 0 and "5 folder(s) removed" in out
    for folder in foreign:
        assert f"{folder.relative_to(owner.node)} is kept: this vault did not export it" in out
        assert (folder / "thesis.tex").exists()


def test_a_folder_is_recorded_before_it_is_made(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, rename, seen = os.mkdir, os.rename, []

    def record() -> dict[str, Any]:
        path = owner.vault / "handed_over.json"
        return json.loads(path.read_text()) if path.exists() else {"shards": {}, "private": []}

    def where(descriptor: int | None) -> Path:
        return Path("/proc/self/fd", str(descriptor)).readlink() if descriptor else Path()

    def made(name: str, *rest: int, dir_fd: int | None = None) -> None:
        if where(dir_fd) == owner.node / "private":
            seen.append(name in record()["private"])
        mkdir(name, *rest, dir_fd=dir_fd)

    def moved(old: str, new: str, **options: int) -> None:
        if where(options.get("dst_dir_fd")) == owner.node / "shards":
            seen.append(new in record()["shards"])
        rename(old, new, **options)

    monkeypatch.setattr(os, "mkdir", made)
    monkeypatch.setattr(os, "rename", moved)
    owner.ready()
    assert seen == [True] * 4


# Drafts and records.


def planted_draft(owner: Owner, record: str) -> Path:
    """A draft of an earlier version, of the node's own making, that names a record."""
    shard = owner.shard("per-image-derived")
    place = owner.node / "shards" / ".x.draft"
    shutil.copytree(shard, place / "shard")
    (place / "shard" / "manifest.json").unlink()
    values = json.loads((shard / "manifest.json").read_text())
    (place / "draft.json").write_text(json.dumps(values | {"record": record, "sha256": {}}))
    np.save(place / "done.npy", np.zeros(7, np.uint8))
    return place


@pytest.mark.parametrize("whose", ["the shard's own", "a path"])
def test_a_planted_draft_removes_no_salts(whose: str, owner: Owner, home: Path) -> None:
    owner.ready()
    (home / "daemon.json").write_text("{}")
    name = open_shard([owner.shard("per-image-derived")]).parts[0].manifest.record
    assert name is not None
    place = planted_draft(owner, name if whose == "the shard's own" else str(home / "daemon"))
    before = files_in(owner.vault)
    assert owner.encrypt()[0] == 0
    assert files_in(owner.vault) == before and (home / "daemon.json").exists()
    assert place.exists()  # not ours to remove
    assert owner.decrypt("per-image-derived")[0] == 0


def forged_record(owner: Owner, victim: Path) -> None:
    """A record in the node folder whose scenes are named so that they are written over others."""
    shard = owner.shard("per-image-derived")
    manifest = json.loads((shard / "manifest.json").read_text())
    stem = "../" + str(victim.relative_to(owner.place)).removesuffix("_leftImg8bit.png")
    record = {
        "cipher": "shuffle",
        "block_scope": "common",
        "train": [f"../../{stem}", *(f"train/aachen/{number}" for number in range(5))],
        "heldout": ["train/aachen/6"],
        "salts": {"client": "00" * 16},
        "samples": {},
        "label_ids": [0] * 256,
    }
    text = json.dumps(record)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    (owner.node / f"{name}.json").write_text(text)
    manifest["record"] = str(owner.node / name)
    (shard / "manifest.json").write_text(json.dumps(manifest))


def test_a_returned_folder_overwrites_no_original(owner: Owner) -> None:
    owner.root = small.tree_of_links(owner.root, owner.place / "tree")
    victim = sorted((owner.root / "leftImg8bit/train/aachen").iterdir())[0]
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content)
    owner.ready()
    forged_record(owner, victim)
    before = everything(owner.root)
    outcome = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    fails(outcome, "record: expected 32 hex digits", status=1)
    fails(owner.decrypt("per-image-derived"), "record: expected 32 hex digits")
    assert everything(owner.root) == before and victim.read_bytes() == content
    assert not (owner.place / "per-image-derived").exists()


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("record", "../../../etc/passwd", "record: expected 32 hex digits"),
        ("client", "../aachen", "client: expected the name of a client"),
        ("num_views", 9, "do not fit its manifest"),
        ("num_images", 10**9, "num_images: Input should be less than"),
        ("block_size", 7, "no blocks of 7"),
        ("block_size", 0, "block_size: Input should be greater"),
        ("heldout_sizes", [], "do not fit its manifest"),
    ],
)
def test_a_manifest_that_was_changed_is_one_line(
    field: str, value: object, reason: str, owner: Owner
) -> None:
    owner.ready()
    path = owner.shard("per-image-derived") / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    fails(owner.decrypt("per-image-derived"), reason)
    assert not (owner.place / "per-image-derived").exists()


@pytest.mark.parametrize(
    "arms",
    [("per-image-derived", "per-client-private"), ("per-client-private", "per-image-derived")],
)
def test_a_node_folder_does_not_say_which_salts_belong_to_a_shard(
    arms: tuple[str, str], owner: Owner
) -> None:
    """The manifest names a record that the vault has, of other keys and as many images."""
    owner.ready()
    changed, other = (owner.shard(arm) for arm in arms)
    path = changed / "manifest.json"
    values, before = json.loads(path.read_text()), path.read_bytes()
    named = json.loads((other / "manifest.json").read_text())["record"]
    path.write_text(json.dumps(values | {"record": named}))
    reason = f"expected the salts {values['record']}, got {named}"
    fails(owner.decrypt(arms[0]), reason)
    outcome = owner.call("verify", "--node", owner.node, "--vault", owner.vaults)
    fails(outcome, reason, status=1)
    assert owner.encrypt()[0] == 0  # anew, under salts of its own
    assert path.read_bytes() != before
    assert json.loads(path.read_text())["record"] not in (named, values["record"])
    assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "shards", "shards/x", "private/../x"])
def test_a_policy_names_nothing_outside_its_folder(path: str, owner: Owner) -> None:
    owner.ready()
    policy = owner.node / "policy.yaml"
    name = owner.shard("per-image-derived").name
    policy.write_text(policy.read_text().replace(f"shards/{name}", path))
    for outcome in commands(owner).values():
        fails(outcome, "which is not a shard, private embedding or start of this folder")


def test_hashes_are_looked_at_before_anything_is_decrypted(owner: Owner) -> None:
    owner.ready()
    path = owner.shard("per-image-derived") / "gtFine/train/aachen.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    fails(
        owner.decrypt("per-image-derived"),
        "gtFine/train/aachen.npy was changed since it was written",
    )
    with pytest.raises(InputError, match="damaged shard"):
        open_shard([owner.shard("per-image-derived")])


def test_two_node_folders_of_one_vault_stay_of_use(owner: Owner) -> None:
    owner.ready()
    owner.node = owner.place / "second"
    assert owner.encrypt()[0] == 0
    for name in ("node", "second"):
        owner.node = owner.place / name
        assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
        assert "nothing was done" in owner.encrypt()[1]
        status, out, _ = owner.keys("withdraw", "--node", owner.node)
        assert status == 0 and "5 folder(s) removed" in out


# Those who may read.


def reader() -> grp.struct_group:
    """A group that the folder can be given to: any for root, else the user's own."""
    if os.geteuid() != 0:
        return grp.getgrgid(os.getegid())
    return next(group for group in grp.getgrall() if group.gr_gid not in (0, os.getegid()))


def inside(node: Path) -> set[tuple[bool, int, int]]:
    paths = (node, *node.rglob("*"))
    return {(p.is_dir(), stat.S_IMODE(p.stat().st_mode), p.stat().st_gid) for p in paths}


def test_a_group_may_read_the_node_folder_and_write_nothing(owner: Owner) -> None:
    group = reader()
    assert owner.keys("new")[0] == 0
    before = os.umask(0)
    try:
        assert owner.encrypt("--readers", group.gr_name)[0] == 0
        wanted = {(True, 0o750, group.gr_gid), (False, 0o640, group.gr_gid)}
        assert inside(owner.node) == wanted
        owner.configure(data={"image_size": [32, 64], "num_views": 1})
        assert owner.encrypt()[0] == 0  # stays, though not named again
        assert inside(owner.node) == wanted
        assert owner.keys("withdraw", "--node", owner.node)[0] == 0
        assert inside(owner.node) == wanted
    finally:
        os.umask(before)
    assert owner.call("verify", "--node", owner.node)[0] == 0
    (owner.node / "policy.yaml").chmod(0o660)
    fails(owner.call("verify", "--node", owner.node), "others may write this policy")


def test_a_group_is_given_to_a_folder_that_is_there(owner: Owner) -> None:
    owner.ready()
    group = reader()
    assert owner.encrypt("--readers", group.gr_name)[0] == 0
    assert inside(owner.node) == {(True, 0o750, group.gr_gid), (False, 0o640, group.gr_gid)}
    fails(owner.encrypt("--readers", "no-such-group"), "on this machine; create it with groupadd")


# File systems.


def test_a_vault_on_another_disk_hands_over_the_same(owner: Owner) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == owner.place.stat().st_dev:
        pytest.skip("no second file system here")
    owner.vaults = memory / f"fl_ppseg-{os.getpid()}"
    owner.vault = owner.vaults / "aachen"
    try:
        owner.ready()
        assert owner.call("verify", "--node", owner.node, "--vault", owner.vaults)[0] == 0
        assert not list(owner.node.rglob(".*")) and not (owner.vault / "drafts").exists()
    finally:
        shutil.rmtree(owner.vaults, ignore_errors=True)
