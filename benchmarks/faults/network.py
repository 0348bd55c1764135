"""Network namespaces, joined by a bridge: each is a machine with an address of its own."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Self


class Network:
    """Machines by name, as long as the `with` lasts."""

    def __init__(self, names: Sequence[str], label: str = "fl", subnet: str = "10.77.0") -> None:
        """Name them; `label` begins the names of all links and namespaces."""
        self._label = label
        self._subnet = subnet
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    def __enter__(self) -> Self:
        self.__exit__()  # what a killed run left
        _ip("link", "add", self._label, "type", "bridge")
        _ip("link", "set", self._label, "up")
        for name in self._numbers:
            self._connect(name)
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._numbers:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", self._space(name))
        with suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._label)

    def address(self, name: str) -> str:
        """The address of a machine."""
        return f"{self._subnet}.{self._numbers[name]}"

    def on(self, name: str, command: Sequence[str]) -> list[str]:
        """A command, to be run on a machine."""
        return ["ip", "netns", "exec", self._space(name), *command]

    def cut(self, name: str) -> None:
        """Pull the cable of a machine: what is sent is lost, and nobody is told."""
        _ip("link", "set", self._cable(name), "down")

    def heal(self, name: str) -> None:
        """Plug the cable in again."""
        _ip("link", "set", self._cable(name), "up")

    def _connect(self, name: str) -> None:
        space, cable = self._space(name), self._cable(name)
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", self._label, "up")
        _ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", space, "link", "set", link, "up")

    def _space(self, name: str) -> str:
        return f"{self._label}-{name}"

    def _cable(self, name: str) -> str:
        return f"{self._label}-{self._numbers[name]}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
