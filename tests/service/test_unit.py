"""The unit and the compose file that start the service, with the options of the command."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from checkout import CHECKOUT

from fl_ppseg.serve import main
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

ODD = 'my "100 %" $x'


def written(kind: str, tmp_path: Path, *options: str) -> str:
    model = tmp_path / ODD / "model"
    base = ["--model", str(model), "--template", kind, "--out", str(tmp_path / "out")]
    assert main([*base, *options]) == 0
    name = {"systemd": "fl-ppseg-serve.service", "compose": "serve.compose.yaml"}[kind]
    return (tmp_path / "out" / name).read_text("utf-8")


def test_a_unit_has_the_options_and_hands_over_the_secrets(tmp_path: Path) -> None:
    unit = written("systemd", tmp_path, "--tokens", str(tmp_path / ODD / "tokens"), "--rate", "7")
    (start,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert r'"--rate" "7"' in start
    assert r'my \"100 %%\" $$x/model"' in start
    assert start.endswith("--tokens %d/tokens")
    assert f'LoadCredential=tokens:{tmp_path}/my "100 %%" $x/tokens\n' in unit
    assert "# no --tls-key\n" in unit
    assert "DynamicUser=yes" in unit and "PrivateDevices=yes" in unit
    assert "CapabilityBoundingSet=\n" in unit
    if shutil.which("systemd-analyze"):
        file = tmp_path / "out" / "fl-ppseg-serve.service"
        command = ["systemd-analyze", "verify", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "fl-ppseg-serve" not in done.stderr


def test_a_low_port_and_a_gpu_need_more(tmp_path: Path) -> None:
    unit = written("systemd", tmp_path, "--port", "443", "--device", "cuda")
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" in unit
    assert "PrivateDevices=no" in unit


def test_a_compose_file_mounts_what_is_read_and_nothing_else(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    text = written("compose", tmp_path, "--tokens", tokens, "--behind-proxy", "127.0.0.1")
    (service,) = yaml.safe_load(text)["services"].values()
    words = [word.replace("$$", "$") for word in service["command"]]
    assert words[:3] == ["python", "-m", "fl_ppseg.serve"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--model"] == str(tmp_path / ODD / "model")
    assert (given["--tokens"], given["--behind-proxy"]) == (tokens, "127.0.0.1")
    assert "--template" not in given and "--out" not in given
    mounts = [mount.replace("$$", "$") for mount in service["volumes"]]
    assert mounts == [f"{given['--model']}:{given['--model']}:ro", f"{tokens}:{tokens}:ro"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert "[serve]" in (tmp_path / "out" / "Dockerfile").read_text("utf-8")


def test_an_image_has_of_a_checkout_what_a_wheel_has_and_nothing_else(tmp_path: Path) -> None:
    """No runs, vaults or history, wherever they lie in the checkout that it is built from."""
    written("compose", tmp_path)
    text = (tmp_path / "out" / "Dockerfile.dockerignore").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    wheel = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    wheel = wheel["build"]["targets"]["wheel"]
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert taken == {*wheel["packages"], *wheel["force-include"]}
    assert lines[0] == "*" and lines[-1] == "**/__pycache__"


def test_what_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="no path with a colon"):
        written("compose", tmp_path, "--tokens", str(tmp_path / "a:b"))
    options = ["--model", "m", "--host", "0.0.0.0", "--template", "systemd", "--out", str(tmp_path)]
    assert run(main, options) == 2
    assert "others on the network" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fl-ppseg-serve.service").write_text("another")
    with pytest.raises(InputError, match="another file exists"):
        written("systemd", tmp_path)
