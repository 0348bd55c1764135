"""Options of the audit: what is asked for is run, and what would be ignored is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fl_ppseg.audit import command
from fl_ppseg.audit import procedure as whole
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError


class Asked:
    """What the command asks the audit for."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.options: dict[str, Any] = {}

    def __call__(self, config: Config, *arguments: Any, **options: Any) -> None:
        self.config, self.options = config, options


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    audit = Asked()
    monkeypatch.setattr(whole, "audit", audit)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return audit


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run, as far as its config goes."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"arms": ["plain"]}), "utf-8")
    return folder


def setting(asked: Asked) -> tuple[str | None, ...]:
    assert asked.config is not None
    (arm,) = arms_of(asked.config).values()
    return arm.cipher, arm.key_mode, arm.block_scope, arm.key_lifetime


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ("shuffle", "per-image", "per-block", "disposable")),
        (("--key-mode", "per-client"), ("shuffle", "per-client", "per-block", "derived")),
        (("--block-scope", "common"), ("shuffle", "per-image", "common", "disposable")),
    ],
)
def test_a_cipher_has_a_key_an_image_and_a_draw_a_block_unless_told_otherwise(
    asked: Asked, options: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert command.main(["--cipher", "shuffle", *options]) == 0
    assert setting(asked) == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--key-mode", "per-client"], "--key-mode belongs to --cipher; add --cipher"),
        (["--block-scope", "per-block"], "--block-scope belongs to --cipher"),
        (["--arms", "per-image", "--block-scope", "common"], "--block-scope belongs to --cipher"),
        (["--config", "quick", "--key-mode", "per-image"], "--key-mode belongs to --cipher"),
        (
            ["--arms", "plain", "--set", "arms=[per-image]"],
            "--arms and --set arms exclude each other",
        ),
        (
            ["--cipher", "shuffle", "--set", "arms=[plain]"],
            "--cipher and --set arms exclude each other",
        ),
        (["--data-root", ".", "--set", "data.root=."], "--data-root and --set data.root exclude"),
    ],
)
def test_what_would_be_ignored_is_refused(
    asked: Asked, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command.main, arguments) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert "leave" in error
    assert asked.config is None


@pytest.mark.parametrize(
    "given",
    [
        ("--config", "quick"),
        ("--cipher", "shuffle"),
        ("--key-mode", "per-image"),
        ("--block-scope", "common"),
        ("--set", "arms=[plain]"),
    ],
)
def test_a_run_is_audited_with_its_own_settings(
    asked: Asked, finished: Path, given: tuple[str, str]
) -> None:
    with pytest.raises(InputError, match=f"with its own config; leave out {given[0]}$"):
        command.main([str(finished), *given])
    assert asked.config is None


def test_a_run_without_a_vault_in_the_folder_named_is_refused_before_the_attacks(
    asked: Asked, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no vault found"):
        command.main([str(finished), "--vault-dir", str(tmp_path)])
    assert asked.config is None


def test_a_run_that_no_vault_is_known_of_is_not_searched(asked: Asked, finished: Path) -> None:
    assert command.main([str(finished)]) == 0
    assert asked.config is not None and asked.options["vault_dir"] is None


def test_images_named_as_an_option_come_first_those_of_the_environment_last(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYSCAPES_DATASET", "usual")
    for arguments, folder in (
        ([], "usual"),
        (["--set", f"data.root={tmp_path / 'set'}"], "set"),
        (["--data-root", "option"], "option"),
    ):
        assert command.main(arguments) == 0
        assert asked.config is not None and asked.config.data.root == tmp_path / folder


def test_no_report_is_written_among_keys(
    asked: Asked, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vaults" / "aachen").mkdir(parents=True)
    (tmp_path / "vaults" / "aachen" / "master.key").touch()
    vaults = ["--vault-dir", str(tmp_path / "vaults")]
    out = ["--out", str(tmp_path / "vaults" / "audit")]
    assert run(command.main, [str(finished), *vaults, *out]) == 2
    assert "keys must be kept apart from what others see" in capsys.readouterr().err
    assert asked.config is None
    assert run(command.main, [str(finished), *vaults]) == 0
    assert asked.config is not None
