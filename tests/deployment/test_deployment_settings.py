"""What `init` was told is read as it was written, by coordinator and node alike."""

import os
import re
from pathlib import Path

import must_fail
import pytest

from clients.node.home import Settings as NodeSettings
from fl_ppseg.config.section import Section
from fl_ppseg.deployment.settings import load_settings, save_settings
from fl_ppseg.system.errors import InputError
from strategies.coordinator.home import Settings as CoordinatorSettings

SETTINGS = [
    NodeSettings(client="aachen", app_home=Path("/srv/app home")),
    NodeSettings(
        client="aachen", app_home=Path("/srv/app"), node_user="fl-node", app_user="fl-app"
    ),
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


CONTROL = "client: aachen\napp_home: /srv/node/app\nnode_user: fl-node\napp_user: fl-app\n"


def load_node(content: bytes, folder: Path) -> NodeSettings:
    path = folder / "node.yaml"
    path.write_bytes(content)
    path.chmod(0o644)
    return load_settings(NodeSettings, path, "node", "init")


def test_the_vectors_control_is_good(tmp_path: Path) -> None:
    assert load_node(CONTROL.encode(), tmp_path).app_user == "fl-app"


@must_fail.of("node_settings")
def test_must_fail_vectors(vector: must_fail.Vector, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(vector.error)) as caught:
        load_node(vector.content, tmp_path)
    assert str(tmp_path / "node.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "open"])
def test_a_file_of_settings_that_others_could_have_made_is_refused(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "node.yaml"
    if kind == "link":
        path.with_name("other.yaml").write_text(CONTROL)
        path.symlink_to("other.yaml")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_text(CONTROL)
        path.chmod(0o666)
    with pytest.raises((InputError, OSError)):
        load_settings(NodeSettings, path, "node", "init")


def test_where_nobody_lives_the_way_to_make_one_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(NodeSettings, tmp_path / "node.yaml", "node", "clients.node init --home X")
    assert str(caught.value) == (
        f"{tmp_path} is not a folder of a node; make one with python -m clients.node init --home X"
    )
