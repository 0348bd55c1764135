"""What codes lost, kept by round on the node."""

from pathlib import Path

import numpy as np
import pytest

from clients.residuals import KEPT, load_residual, residual_folder, save_residual
from clients.version_files import versions
from fl_ppseg.system.errors import InputError

LIKE = {"w": np.zeros((2, 3))}


def residual(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32)}


def test_a_round_begins_with_the_residual_of_the_round_before_it_that_was_trained(
    tmp_path: Path,
) -> None:
    folder = residual_folder(tmp_path, "run", "plain", 0)
    assert load_residual(folder, 1, LIKE) == {}
    save_residual(folder, 2, residual(2))
    save_residual(folder, 5, residual(5))
    assert load_residual(folder, 2, LIKE) == {}
    assert [load_residual(folder, n, LIKE)["w"][0, 0] for n in (3, 5, 6, 9)] == [2, 2, 5, 5]


def test_a_repeated_round_replaces_its_residual_and_later_ones(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save_residual(tmp_path / "a", number, residual(number))
    save_residual(tmp_path / "a", 2, residual(7))
    assert versions(tmp_path / "a") == [1, 2]
    assert load_residual(tmp_path / "a", 4, LIKE)["w"][0, 0] == 7


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(1, 9):
        save_residual(tmp_path / "a", number, residual(number))
    assert versions(tmp_path / "a") == [6, 7, 8] and KEPT == 3


def test_runs_arms_and_seeds_have_their_own(tmp_path: Path) -> None:
    folders = {
        residual_folder(tmp_path, run, arm, seed)
        for run in ("a", "b")
        for arm in ("plain", "per-image")
        for seed in (0, 1)
    }
    assert len(folders) == 8


@pytest.mark.parametrize("offset", [20, -1])
def test_a_damaged_residual_stops_the_round_and_says_what_to_do(
    offset: int, tmp_path: Path
) -> None:
    save_residual(tmp_path / "a", 1, residual(1))
    (file,) = (tmp_path / "a").iterdir()
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="remove its folder"):
        load_residual(tmp_path / "a", 2, LIKE)


@pytest.mark.parametrize("stored", [np.zeros((3, 2)), np.full((2, 3), np.nan)])
def test_a_residual_of_other_weights_is_refused(stored: np.ndarray, tmp_path: Path) -> None:
    save_residual(tmp_path / "a", 1, {"w": np.float32(stored)})
    with pytest.raises(InputError, match="of other weights; remove it"):
        load_residual(tmp_path / "a", 2, LIKE)
