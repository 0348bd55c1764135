"""An owner on a machine of its own: the vault's command, run in this process or another."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_federation as small
import yaml
from checkout import PYTHONPATH

from clients.policy.node_policy import NodePolicy, load_policy
from clients.vault.command import main
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.data.views import views
from fl_ppseg.system import workers
from fl_ppseg.system.command_line import run

DERIVED = builtin_arms()["per-image"].model_dump() | {"key_lifetime": "derived"}
ARMS = ("per-client-private", "per-image", "per-image-derived")
ASKED = re.compile("--agree [0-9a-f]{40}")
PASSPHRASE = "correct horse battery staple"


class Owner:
    """The owner of aachen, with a vault, a tree of images and a node folder."""

    def __init__(self, root: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.place, self._capsys = root, place, capsys
        self.vaults, self.node = place / "vaults", place / "node"
        self.vault = self.vaults / "aachen"
        self.config = place / "config.yaml"
        self.passphrase = place / "passphrase"
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.passphrase.chmod(0o600)
        self.configure()

    def configure(self, **changes: Any) -> None:
        """Write the config that all parties have."""
        table = {"per-image-derived": DERIVED}
        settings = small.settings(None, arms=list(ARMS), arm_table=table) | changes
        self.config.write_text(yaml.safe_dump(settings))

    def call(self, command: str, *options: object) -> tuple[int, str, str]:
        """Run a command: exit status, standard output, standard error."""
        self._capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "ProcessPoolExecutor", small.InlinePool)
            status = run(main, [command, *map(str, options)])
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def keys(self, command: str, *options: object, client: str = "aachen") -> tuple[int, str, str]:
        """Run a command on the vault; the floor of a new one is as low as small images want it."""
        outcome = self.call(command, "--vault", self.vaults, "--client", client, *options)
        if command == "new" and outcome[0] == 0:
            self.lower_floor(client)
        return outcome

    def lower_floor(self, client: str = "aachen", **changes: Any) -> Path:
        """Write a floor that small configs stay above; returns its file."""
        path = self.vaults / client / "floor.yaml"
        floor = {"min_batch_size": 2, "min_heldout": 1} | changes
        path.write_text(yaml.safe_dump(floor))
        path.chmod(0o600)
        return path

    def encrypt(self, *options: object, client: str = "aachen") -> tuple[int, str, str]:
        """Encrypt into the node folder, with what is asked for agreed to."""
        named = (*self.encrypt_options(), *options)
        outcome = self.keys("encrypt", *named, client=client)
        found = ASKED.search(outcome[2])
        return self.keys("encrypt", *named, *found[0].split(), client=client) if found else outcome

    def agreement(self, *options: object) -> list[str]:
        """The option that agrees to what `encrypt` asks for."""
        found = ASKED.search(self.keys("encrypt", *self.encrypt_options(), *options)[2])
        return found[0].split() if found else []

    def encrypt_options(self) -> list[str]:
        """What names tree, config and node folder."""
        options = {"--data-root": self.root, "--config": self.config, "--out": self.node}
        named = [str(word) for pair in options.items() for word in pair]
        return [*named, "--workers", "1", "--quiet"]

    def ready(self) -> "Owner":
        """With a key and a node folder."""
        for status, _, error in (self.keys("new"), self.encrypt()):
            assert status == 0, error
        return self

    def decrypt(self, arm: str, *options: object) -> tuple[int, str, str]:
        """Decrypt an arm's shard into a folder of its name."""
        named = ("--node", self.node, "--arm", arm, "--out", self.place / arm)
        return self.keys("decrypt", *named, *options)

    @property
    def policy(self) -> NodePolicy:
        return load_policy(self.node / "policy.yaml")

    def shard(self, arm: str) -> Path:
        """Folder of an arm's shard."""
        return self.policy.arms[arm].shards[0][0]

    def plain_views(self) -> Iterator[np.ndarray]:
        """(3, H, W), all views of all images, held-out ones included."""
        size, number = (32, 64), small.SETTINGS["data"]["num_views"]
        scenes = open_dataset(self.root, load_class_table("cityscapes")).split("train")["aachen"]
        for scene in scenes:
            for image, _ in views(*scene.load(), size, "resize", number, 0, scene.scene_id):
                yield image


def fails(outcome: tuple[int, str, str], reason: str, status: int = 2) -> None:
    """A command said in one line why it failed."""
    found, _, error = outcome
    assert found == status, outcome
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert reason in error


def files_in(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def python(script: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """A script in a process of its own, which finds the packages and the tests."""
    environment = os.environ | {"PYTHONPATH": PYTHONPATH} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
