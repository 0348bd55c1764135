"""What `init` was told is read as it was written, by coordinator and node alike."""

from pathlib import Path

import pytest

from clients.node.home import Settings as NodeSettings
from fl_ppseg.config import Section
from fl_ppseg.deployment.settings import load_settings, save_settings
from fl_ppseg.errors import InputError
from strategies.coordinator.home import Settings as CoordinatorSettings

SETTINGS = [
    NodeSettings(city="aachen", app_home=Path("/srv/app home")),
    CoordinatorSettings(hosts=("coordinator.example", "10.1.0.1"), bind="::", insecure=True),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_come_back(settings: Section, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    save_settings(settings, path)
    assert load_settings(type(settings), path, "node", "init") == settings


@pytest.mark.parametrize("text", ["", "- 1", "hosts: 3", "hosts: [a]\nport: 70000", "colour: red"])
def test_a_damaged_file_is_one_line_that_names_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings(CoordinatorSettings, path, "coordinator", "init")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_where_nobody_lives_the_way_to_make_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(NodeSettings, tmp_path / "node.yaml", "node", "clients.node init --home X")
    assert str(caught.value) == (
        f"{tmp_path}: no node lives here; make one with python -m clients.node init --home X"
    )
