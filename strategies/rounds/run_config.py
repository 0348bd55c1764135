"""The run config that a run is submitted with, and the roles of the run's clients."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator

from fl_ppseg.config.loading import validate
from fl_ppseg.config.run_layout import CLIENTS, CONFIG
from fl_ppseg.config.section import Section
from fl_ppseg.deployment.clients import load_clients
from fl_ppseg.federation.roles import Role

MAX_NODES = 20_000
PREPARE = "python -m fl_ppseg.simulate --prepare"


def _check_folder(path: str) -> str:
    folder = Path(path)
    if path and ("\0" in path or not folder.is_absolute() or not (folder / CONFIG).is_file()):
        raise ValueError(f"expected the absolute path of a run folder prepared with {PREPARE}")
    return path


class RunConfig(Section):
    """The run config of `flwr run`, and of the coordinator's `run`.

    The settings below are of a run that nobody prepared; one that was prepared has its own.
    """

    run_dir: Annotated[str, Field(max_length=4096, strict=True), AfterValidator(_check_folder)] = (
        Field(alias="run-dir")
    )
    """The prepared run folder; empty: prepare a small federation for the nodes that Flower
    simulates."""
    num_nodes: Annotated[int, Field(ge=0, le=MAX_NODES, strict=True)] = Field(alias="num-nodes")
    """Number of nodes to wait for, evaluate-only ones included; 0 with no run folder: all."""
    arms: Annotated[str, Field(max_length=1_000, strict=True)] = "plain,per-image-invariant"
    """Arms to compare, with commas between them."""
    num_server_rounds: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(
        3, alias="num-server-rounds"
    )
    """Rounds of each arm."""
    fraction_train: Annotated[float, Field(gt=0, le=1)] = Field(1.0, alias="fraction-train")
    """Share of the training clients that a round asks."""
    local_epochs: Annotated[int, Field(ge=1, le=10_000, strict=True)] = Field(
        1, alias="local-epochs"
    )
    """Passes over a client's images in a round."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = Field(2e-3, alias="learning-rate")
    """Learning rate at the start of round 1."""
    batch_size: Annotated[int, Field(ge=1, le=65_536, strict=True)] = Field(4, alias="batch-size")
    """Views per step."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if not self.run_dir:
            if self.num_nodes:
                raise ValueError(
                    "num-nodes counts the nodes of a prepared run; give its run-dir too, or "
                    "neither (the number of simulated nodes: --federation-config num-supernodes=N)"
                )
            return self
        if not self.num_nodes:
            raise ValueError("run-dir needs num-nodes, the nodes that the run was prepared for")
        for name in _OF_UNPREPARED:
            field = type(self).model_fields[name]
            if getattr(self, name) != field.default:
                raise ValueError(
                    f"{field.alias or name} is for a run that is not prepared; the run folder has "
                    "settings of its own, leave it out"
                )
        return self


_OF_UNPREPARED: Final = (
    "arms",
    "num_server_rounds",
    "fraction_train",
    "local_epochs",
    "learning_rate",
    "batch_size",
)


def parse_run_config(run_config: Mapping[str, Any]) -> RunConfig:
    """Parse the run config of Flower.

    Raises:
        InputError: A key is missing, unknown or out of bounds.
    """
    return validate(RunConfig, dict(run_config), "run config")


def expected_roles(run: Path) -> dict[str, Role] | None:
    """Role of each client of a deployed run; None for a simulation, whose nodes are its own.

    Raises:
        InputError: The run folder's clients.json is damaged.
    """
    if not (run / CLIENTS).exists():
        return None
    clients = load_clients(run)
    roles: dict[str, Role] = dict.fromkeys(clients.train, "train")
    return roles | dict.fromkeys(clients.val, "val")
