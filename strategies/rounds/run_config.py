"""The run config that a run is submitted with, and the roles of the run's cities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from fl_ppseg.config.loading import validate
from fl_ppseg.config.run_layout import CITIES, CONFIG
from fl_ppseg.config.section import Section
from fl_ppseg.deployment.cities import load_cities
from fl_ppseg.federation.roles import Role

MAX_NODES = 20_000
PREPARE = "python -m fl_ppseg.simulate --prepare"


def _check_folder(path: str) -> str:
    folder = Path(path)
    if "\0" in path or not folder.is_absolute() or not (folder / CONFIG).is_file():
        raise ValueError(f"expected the absolute path of a run folder prepared with {PREPARE}")
    return path


class RunConfig(Section):
    """The run config of `flwr run`, and of the coordinator's `run`."""

    run_dir: Annotated[str, Field(max_length=4096, strict=True), AfterValidator(_check_folder)] = (
        Field(alias="run-dir")
    )
    """The prepared run folder."""
    num_nodes: Annotated[int, Field(gt=0, le=MAX_NODES, strict=True)] = Field(alias="num-nodes")
    """Number of nodes to wait for, evaluate-only ones included."""


def parse_run_config(run_config: Mapping[str, Any]) -> RunConfig:
    """Parse the run config of Flower.

    Raises:
        InputError: A key is missing, unknown or out of bounds.
    """
    return validate(RunConfig, dict(run_config), "run config")


def expected_roles(run: Path) -> dict[str, Role] | None:
    """Role of each city of a deployed run; None for a simulation, whose nodes are its own.

    Raises:
        InputError: The run folder's cities.json is damaged.
    """
    if not (run / CITIES).exists():
        return None
    cities = load_cities(run)
    roles: dict[str, Role] = dict.fromkeys(cities.train, "train")
    return roles | dict.fromkeys(cities.val, "val")
