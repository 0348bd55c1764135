"""A run as it is submitted to the server: its folder, its nodes, and the roles of its cities."""

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
        raise ValueError(f"wanted the absolute path of a prepared run folder: {PREPARE}")
    return path


class Submission(Section):
    """The run config of `flwr run`, and of the coordinator's `run`."""

    run_dir: Annotated[str, Field(max_length=4096, strict=True), AfterValidator(_check_folder)] = (
        Field(alias="run-dir")
    )
    """The prepared run folder."""
    num_nodes: Annotated[int, Field(gt=0, le=MAX_NODES, strict=True)] = Field(alias="num-nodes")
    """Nodes to wait for, evaluate-only ones included."""


def submission(run_config: Mapping[str, Any]) -> Submission:
    """What a run config asks for.

    Raises:
        InputError: Something is missing, unknown or beyond its bounds.
    """
    return validate(Submission, dict(run_config), "run config")


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
