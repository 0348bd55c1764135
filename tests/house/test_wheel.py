"""The wheel outside of any checkout: commands, configs, the app's bundle, sources of images."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
import yaml
from checkout import CHECKOUT

from fl_ppseg import __version__
from fl_ppseg.__main__ import COMMANDS
from fl_ppseg.config.loading import builtin_arms, configs_dir
from fl_ppseg.flower.superlink import read_bundle
from fl_ppseg.system.installation import checkout


def built(source: Path, out: Path) -> Path:
    """The wheel of a folder of sources, made as pip has it made, by what is installed here."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(CHECKOUT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel is unpacked into: as pip does, so that all may be imported."""
    place = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place)
    return place


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """What a command of the wheel says, in an empty folder; no checkout can be imported."""
    folder.mkdir(exist_ok=True)
    own = {name: str(folder / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in given if path and not (Path(path) / "fl_ppseg").is_dir()]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=os.environ | own | {"PYTHONPATH": os.pathsep.join([str(installed), *others])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        (about,) = (name for name in packed.namelist() if name.endswith("dist-info/METADATA"))
        (scripts,) = (name for name in packed.namelist() if name.endswith("entry_points.txt"))
        told = message_from_string(packed.read(about).decode())
        assert "fl-ppseg = fl_ppseg.__main__:script" in packed.read(scripts).decode()
        names = {name.split("/")[0] for name in packed.namelist()}
    assert (told["Name"], told["Version"]) == ("fl-ppseg", __version__)
    assert "Topic :: Scientific/Engineering :: Image Recognition" in told.get_all("Classifier", [])
    assert names == {"clients", "fl_ppseg", "strategies", f"fl_ppseg-{__version__}.dist-info"}


def test_the_page_of_the_service_is_in_the_wheel(installed: Path) -> None:
    place = Path("fl_ppseg") / "service" / "page"
    files = [
        {path.relative_to(root): path.read_bytes() for path in (root / place).rglob("*.*")}
        for root in (CHECKOUT, installed)
    ]
    assert len(files[0]) > 20 and files[0] == files[1]


def test_commands_and_configs_of_the_wheel_are_those_of_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    assert run(installed, tmp_path, "fl_ppseg", "--version") == f"fl-ppseg {__version__}\n"
    assert "--quick" in run(installed, tmp_path, "fl_ppseg.simulate", "-h")
    completion = run(installed, tmp_path, "fl_ppseg", "completion", "bash")  # reads every parser
    assert all(f"_shtab_fl_ppseg_{name}_option_strings" in completion for name in COMMANDS)
    arms = json.loads(run(installed, tmp_path, "fl_ppseg.describe", "arms", "--json"))
    assert [arm["id"] for arm in arms] == list(builtin_arms())
    run_folder = tmp_path / "run"
    options = ["--train-clients", "aachen", "--val-clients", "lindau", "--out", str(run_folder)]
    run(installed, tmp_path, "fl_ppseg.initialise", "--config", "quick", *options)
    settings = yaml.safe_load((run_folder / "config.yaml").read_text("utf-8"))
    quick = yaml.safe_load((configs_dir() / "quick.yaml").read_text("utf-8"))
    assert settings["name"] == quick["name"]


def test_a_wheel_submits_the_bundle_that_owners_have_pinned(
    installed: Path, tmp_path: Path
) -> None:
    ours = hashlib.sha256(read_bundle(CHECKOUT)).hexdigest()
    assert checkout() == CHECKOUT
    assert run(installed, tmp_path, "strategies.coordinator", "bundle").strip() == ours
    bundle = ["bundle", "--app", str(CHECKOUT)]
    assert run(installed, tmp_path, "strategies.coordinator", *bundle).strip() == ours


def test_another_wheel_submits_another_bundle(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "other")
    with (tmp_path / "other" / "clients" / "client_app.py").open("a") as file:
        file.write("#\n")
    said = run(tmp_path / "other", tmp_path / "empty", "strategies.coordinator", "bundle").strip()
    assert len(said) == 64
    assert said != hashlib.sha256(read_bundle(CHECKOUT)).hexdigest()


def test_units_and_images_are_made_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    def coordinator(*arguments: str) -> list[str]:
        verb, *others = arguments
        home = ["--home", str(tmp_path / "home")]
        return run(installed, tmp_path, "strategies.coordinator", verb, *home, *others).splitlines()

    coordinator("init", "--host", "coordinator.example")
    template = ("template", "--runs", "/srv/runs", "--out", str(tmp_path / "out"))
    (unit,) = coordinator(*template, "systemd")
    assert "-m strategies.coordinator start" in Path(unit).read_text("utf-8")
    files = coordinator(*template, "compose")
    source = tmp_path / "out" / "source"
    names = ["Dockerfile", "Dockerfile.dockerignore", "coordinator.compose.yaml", "source"]
    assert files == [str(tmp_path / "out" / name) for name in names]
    assert coordinator(*template, "compose") == files  # the same again is no conflict
    (service,) = yaml.safe_load(Path(files[2]).read_text("utf-8"))["services"].values()
    assert service["build"] == {"context": str(source), "dockerfile": files[0]}

    # What the image is built from makes the same wheel, and the same bundle.
    assert read_bundle(source) == read_bundle(CHECKOUT)
    again = built(source, tmp_path / "again")
    with zipfile.ZipFile(again) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/RECORD")]
        assert {name: packed.read(name) for name in names} == {
            name: (installed / name).read_bytes() for name in names
        }
    (source / "clients" / "client_app.py").write_text("")
    with pytest.raises(AssertionError, match="another folder is there already"):
        coordinator(*template, "compose")
