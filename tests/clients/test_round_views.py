"""A node waits for the views of its round, holds no key, and says in one line why none came."""

import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from clients.policy.fresh_views import (
    ASKED,
    STOPPED,
    is_finished,
    record_finished,
    round_folder,
    training_name,
)
from clients.policy.node_policy import RefusedError
from clients.round_views import open_round
from clients.vault.export.rounds import Asked, parse_asked
from fl_ppseg.data.manifest import round_digest
from fl_ppseg.data.shard import open_shard
from fl_ppseg.system.errors import InputError

PLAIN = training_name("plain", 0)


@pytest.fixture
def place(folders: Mapping[str, Path], tmp_path: Path) -> Path:
    """A shard that is being made: its views come later."""
    shutil.copytree(folders["plain"], tmp_path / "made")
    (tmp_path / "rounds").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path


def test_views_that_come_late_are_waited_for(place: Path) -> None:
    shard = place / "shards" / ("0" * 32)
    target = round_folder(place / "rounds", shard, 3)
    assert target.name == round_digest("0" * 32, 3)

    def make() -> None:
        time.sleep(0.2)
        (place / "made").rename(target)

    maker = threading.Thread(target=make)
    maker.start()
    opened = open_round(place / "rounds", [shard], PLAIN, 3, place / "state", 30.0)
    maker.join()
    assert len(opened) == len(open_shard([target]))


def test_it_says_which_round_of_which_shard_it_needs(place: Path) -> None:
    first, second = place / ("a" * 32), place / ("b" * 32)
    for shard, round in ((first, 1), (second, 1), (first, 2)):
        with pytest.raises(RefusedError, match=f"no whole views of round {round} in 0 s"):
            open_round(place / "rounds", [shard], PLAIN, round, place / "state", 0.0)
        asked = parse_asked((place / "state" / ASKED).read_bytes(), "asked.json")
        assert asked == Asked(shard.name, round)


def test_half_copied_views_are_waited_for_and_damaged_ones_refused(place: Path) -> None:
    shard = place / ("a" * 32)
    target = round_folder(place / "rounds", shard, 1)
    shutil.copytree(place / "made", target)
    part = next(target.rglob("train/*.npy"))
    part.rename(place / "late")
    threading.Timer(0.2, (place / "late").rename, [part]).start()
    assert open_round(place / "rounds", [shard], PLAIN, 1, place / "state", 30.0).num_views
    part.write_bytes(b"no array")
    with pytest.raises(InputError, match="damaged shard"):
        open_round(place / "rounds", [shard], PLAIN, 1, place / "state", None)
    with pytest.raises(RefusedError, match="no whole views"):
        open_round(place / "rounds", [shard], PLAIN, 1, place / "state", 0.0)


def test_it_refuses_at_once_where_no_more_are_made_and_tells_no_path(place: Path) -> None:
    (place / "rounds" / STOPPED).write_text("/vaults: the disk is full\n")
    with pytest.raises(RefusedError) as refused:
        open_round(place / "rounds", [place / ("a" * 32)], PLAIN, 1, place / "state", None)
    assert str(refused.value) == "refused: nothing makes the views of round 1 any more"
    assert not (place / "state" / ASKED).exists()


def test_a_message_of_a_round_that_is_over_is_refused(place: Path) -> None:
    """Its views are gone and none come; an engine may hand it out late."""
    rounds, began = place / "rounds", time.monotonic_ns()
    assert not is_finished(rounds, PLAIN, 1, began)

    def say() -> None:
        time.sleep(0.2)
        record_finished(rounds, time.monotonic_ns(), {PLAIN: 2})

    threading.Thread(target=say).start()
    with pytest.raises(RefusedError) as refused:
        open_round(rounds, [place / ("a" * 32)], PLAIN, 2, place / "state", None)
    assert str(refused.value) == "refused: round 2 is finished"
    assert is_finished(rounds, PLAIN, 1, began)
    assert not is_finished(rounds, PLAIN, 3, began)
    assert not is_finished(rounds, training_name("plain", 1), 1, began)


def test_a_round_that_is_trained_again_is_waited_for(place: Path) -> None:
    """What was said before it was asked for is of a checkpoint that was removed since."""
    rounds, shard = place / "rounds", place / ("a" * 32)
    record_finished(rounds, time.monotonic_ns(), {PLAIN: 2})
    threading.Timer(0.3, (place / "made").rename, [round_folder(rounds, shard, 2)]).start()
    assert open_round(rounds, [shard], PLAIN, 2, place / "state", None).num_views
