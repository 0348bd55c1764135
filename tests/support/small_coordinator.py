"""A coordinator's folder, and a SuperLink that needs no process."""

from pathlib import Path

from fl_ppseg.deployment.identity import make_key_pair
from fl_ppseg.flower.superlink import Node
from strategies.coordinator.command import main
from strategies.coordinator.home import Home

INIT = ["init", "--host", "coordinator.example", "--ip", "10.1.0.1"]


def coordinator(place: Path) -> Home:
    """A new coordinator, in a folder whose path has blanks."""
    assert main([*INIT, "--home", str(place / "home with blanks")]) == 0
    return Home(place / "home with blanks")


def public_key(folder: Path, name: str) -> Path:
    make_key_pair(folder / f"{name}.key", folder / f"{name}.pub", name)
    return folder / f"{name}.pub"


class Registry:
    """A SuperLink that registers nodes as Flower's does."""

    def __init__(self) -> None:
        self.known: list[Node] = []
        self.calls: list[str] = []

    def nodes(self) -> list[Node]:
        return self.known

    def register(self, client: str, key: bytes) -> None:
        assert key not in {node.public_key for node in self.known}  # Flower refuses it
        self.calls.append(f"+{client}")
        self.known.append(Node(len(self.calls), client, False, key))

    def unregister(self, node_id: int) -> None:
        (gone,) = (node for node in self.known if node.node_id == node_id)
        self.calls.append(f"-{gone.client}")
        self.known.remove(gone)
