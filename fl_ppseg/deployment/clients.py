"""The clients of a deployed run: who trains and who only evaluates, in its folder's clients.json.

Replaces a simulation's partition, which names images: the coordinator knows no image.
"""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from fl_ppseg.config.client_names import folded
from fl_ppseg.config.documents import parse_json, read_text
from fl_ppseg.config.loading import validate
from fl_ppseg.config.names import DeployedName
from fl_ppseg.config.run_layout import CLIENTS
from fl_ppseg.config.section import Section
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_CLIENTS = 10_000


class Clients(Section):
    """Names of the nodes of a run."""

    train: Annotated[tuple[DeployedName, ...], Field(min_length=1, max_length=MAX_CLIENTS)]
    """Clients that train, and are scored on held-out images of their own."""
    val: Annotated[tuple[DeployedName, ...], Field(min_length=1, max_length=MAX_CLIENTS)]
    """Clients that only evaluate."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: set[str] = set()  # a file system may not tell upper from lower case
        for client in self.all:
            if folded(client) in seen:
                raise ValueError(f"{client} is named twice")
            seen.add(folded(client))
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """All clients, those that train first."""
        return self.train + self.val


def save_clients(clients: Clients, run: Path) -> None:
    """Write the clients of a run into its folder."""
    write_atomically(run / CLIENTS, json.dumps(clients.model_dump(mode="json"), indent=1) + "\n")


def load_clients(run: Path) -> Clients:
    """Read the clients of a run.

    Raises:
        InputError: The folder is not a run folder that was initialised for nodes.
    """
    path = run / CLIENTS
    try:
        values = parse_json(read_text(path), str(path))
    except InputError as error:
        raise InputError(
            f"{error}; make the run folder with python -m fl_ppseg.initialise"
        ) from None
    return validate(Clients, values, str(path))
