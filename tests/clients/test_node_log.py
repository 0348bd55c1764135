"""The node's log: others' words in it steer no terminal, forge no line and fill no disk."""

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import node_log
from clients.node_log import LOG, MAX_MESSAGE, sanitise, set_up_log

LOGGER = logging.getLogger("clients.test_node_log")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The package's logger as it was before."""
    node = logging.getLogger("clients")
    before = node.handlers, node.propagate, list(node_log._current)
    yield
    for handler in node.handlers:
        handler.close()
    node.handlers, node.propagate = before[0], before[1]
    node_log._current[:] = before[2]


@pytest.mark.parametrize(
    "text",
    [
        "a\n2026-11-26 12:00:00,000 WARNING clients: all is well",
        "a\r\x1b[2J\x1b]0;title\x07",
        "\u2028\u2029\x85\x0b\x0c",
        "right \u202e to left",
        "\udcff half a pair",
    ],
)
def test_a_record_is_one_line_of_printable_characters(text: str, tmp_path: Path) -> None:
    set_up_log(tmp_path)
    LOGGER.warning("refused: %s", text)
    content = (tmp_path / LOG).read_text("utf-8")
    assert content.endswith("\n") and content.count("\n") == 1
    assert content.rstrip("\n").isprintable()
    assert "refused: " in content


def test_the_lines_of_a_traceback_pass_for_no_record(tmp_path: Path) -> None:
    set_up_log(tmp_path)
    try:
        raise ValueError("a\n2026-11-26 12:00:00,000 WARNING clients: forged\x1b[2J")
    except ValueError:
        LOGGER.exception("this node failed")
    first, *rest = (tmp_path / LOG).read_text("utf-8").splitlines()
    assert first.endswith("ERROR clients.test_node_log: this node failed")
    assert len(rest) > 2 and all(line.startswith("    | ") for line in rest)
    assert all(line.isprintable() for line in rest)


def test_a_long_text_is_cut_and_said() -> None:
    assert sanitise("a" * MAX_MESSAGE) == "a" * MAX_MESSAGE
    assert sanitise("a" * 20_000_000) == "a" * MAX_MESSAGE + " ... (19999000 more)"


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_log, "MAX_BYTES", 2000)
    set_up_log(tmp_path)
    for number in range(300):
        LOGGER.warning("refused: %d", number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [LOG, f"{LOG}.1", f"{LOG}.2", f"{LOG}.3"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert "refused: 299" in (tmp_path / LOG).read_text()


def test_nodes_of_one_process_have_logs_of_their_own(tmp_path: Path) -> None:
    for name in ("one", "other", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        set_up_log(tmp_path / name)
        LOGGER.warning("of %s", name)
    assert (tmp_path / "one" / LOG).read_text().count("of one") == 2
    assert "one" not in (tmp_path / "other" / LOG).read_text()


def test_a_link_in_its_place_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / LOG).symlink_to(tmp_path / "target")
    set_up_log(tmp_path)
    LOGGER.warning("anything")
    assert not (tmp_path / "target").exists()
    assert "Too many levels of symbolic links" in capsys.readouterr().err
