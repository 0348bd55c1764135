"""The record of a partition: which client holds which images, as an object and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fl_ppseg.config.documents import parse_json
from fl_ppseg.config.loading import validate
from fl_ppseg.config.run_layout import PARTITION
from fl_ppseg.system.errors import InputError

SceneRef = tuple[str, str]
"""(city, stem)"""
PartitionKind = Literal["by-city", "iid", "dirichlet"]

MIN_IMAGES = 2
"""Of a client: one image to train on, one held out."""
HELD_OUT_SHARE = 10
"""One image in so many is held out."""
SCHEMA = 1
MAX_BYTES = 256 * 2**20
"""A million images by name."""


@dataclass(frozen=True)
class Partition:
    """The images of each client.

    Attributes:
        clients: Client -> its images, sorted by city and name.
        kind: ``by-city``, ``iid`` or ``dirichlet``.
        seed: Of the random kinds.
        alpha: Concentration of ``dirichlet``; None for the others.
        description: What was done, in one sentence for a person.
    """

    clients: Mapping[str, tuple[SceneRef, ...]]
    kind: PartitionKind
    seed: int
    alpha: float | None
    description: str

    def split(self, client: str) -> tuple[tuple[SceneRef, ...], tuple[SceneRef, ...]]:
        """Images to train on, and held-out images: the last tenth by name, at least one."""
        images = self.clients[client]
        num_held_out = max(1, len(images) // HELD_OUT_SHARE)
        return images[:-num_held_out], images[-num_held_out:]

    def to_json(self) -> str:
        """JSON that :meth:`from_json` reads back."""
        document = {
            "schema": SCHEMA,
            "kind": self.kind,
            "seed": self.seed,
            "alpha": self.alpha,
            "description": self.description,
            "clients": {client: _stems_by_city(images) for client, images in self.clients.items()},
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str = PARTITION) -> "Partition":
        """Reads :meth:`to_json`.

        Args:
            text: The JSON.
            source: File name for error messages.

        Raises:
            InputError: No partition, one of another schema, or one that gives an image twice.
        """
        try:
            document = parse_json(text, source, MAX_BYTES)
        except InputError as error:
            raise InputError(f"{error}; restore or delete it") from None
        file = validate(_PartitionFile, document, source)
        clients = {
            client: tuple((city, stem) for city, stems in cities.items() for stem in stems)
            for client, cities in file.clients.items()
        }
        images = [image for group in clients.values() for image in group]
        if len(set(images)) != len(images) or min(map(len, clients.values())) < MIN_IMAGES:
            raise InputError(
                f"{source}: corrupt partition, an image given twice or a client with fewer "
                f"than {MIN_IMAGES}; restore or delete it"
            )
        return cls(clients, file.kind, file.seed, file.alpha, file.description)


class _PartitionFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    version: Literal[1] = Field(alias="schema")
    kind: PartitionKind
    seed: int
    alpha: float | None
    description: str
    clients: Annotated[dict[str, dict[str, list[str]]], Field(min_length=1)]


def _stems_by_city(images: Sequence[SceneRef]) -> dict[str, list[str]]:
    cities: dict[str, list[str]] = {}
    for city, stem in images:
        cities.setdefault(city, []).append(stem)
    return cities
