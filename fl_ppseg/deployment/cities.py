"""The cities of a deployed run: who trains and who only evaluates, in its folder's cities.json.

Replaces a simulation's partition, which names images: the coordinator knows no image.
"""

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from fl_ppseg.config.city_names import folded
from fl_ppseg.config.documents import parse_json, read_text
from fl_ppseg.config.loading import validate
from fl_ppseg.config.names import DeployedCity
from fl_ppseg.config.run_layout import CITIES
from fl_ppseg.config.section import Section
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_CITIES = 10_000


class Cities(Section):
    """Names of the nodes of a run."""

    train: Annotated[tuple[DeployedCity, ...], Field(min_length=1, max_length=MAX_CITIES)]
    """Cities that train, and are scored on held-out images of their own."""
    val: Annotated[tuple[DeployedCity, ...], Field(min_length=1, max_length=MAX_CITIES)]
    """Cities that only evaluate."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        seen: set[str] = set()  # a file system may not tell upper from lower case
        for city in self.all:
            if folded(city) in seen:
                raise ValueError(f"{city} is named twice")
            seen.add(folded(city))
        return self

    @property
    def all(self) -> tuple[str, ...]:
        """All cities, those that train first."""
        return self.train + self.val


def save_cities(cities: Cities, run: Path) -> None:
    """Write the cities of a run into its folder."""
    write_atomically(run / CITIES, json.dumps(cities.model_dump(mode="json"), indent=1) + "\n")


def load_cities(run: Path) -> Cities:
    """Read the cities of a run.

    Raises:
        InputError: The folder is not a run folder that was initialised for nodes.
    """
    path = run / CITIES
    try:
        values = parse_json(read_text(path), str(path))
    except InputError as error:
        raise InputError(
            f"{error}; make the run folder with python -m fl_ppseg.initialise"
        ) from None
    return validate(Cities, values, str(path))
