"""Public cohort keys: whose signatures count in secure aggregation.

Owners pass them on in a YAML file, a line `client: key` each (`python -m clients.vault cohort`
prints one's own), and each node checks rosters against what its own owner consented to. The
coordinator's copy lies in the run folder as cohort.json. Nobody has to trust that one: it lets the
coordinator leave out a client whose advertisement is not signed by its key, and go on with a roster
that the other nodes do not refuse.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from fl_ppseg.config.documents import parse_json, read_text, read_yaml
from fl_ppseg.config.loading import validate
from fl_ppseg.config.names import ClientName, DeployedName
from fl_ppseg.config.run_layout import COHORT
from fl_ppseg.config.section import Section
from fl_ppseg.secure_sum.roster import MAX_CLIENTS, Key
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

HOW: Final = "each owner's line is printed by `python -m clients.vault cohort`"
MAX_BYTES: Final = 8 * 2**20
"""Of cohort.json; that of `MAX_CLIENTS` clients is a third of this."""


class _CohortFile(Section):
    """What owners pass on."""

    keys: Annotated[dict[DeployedName, Key], Field(min_length=2, max_length=MAX_CLIENTS)]


class _CohortKeys(Section):
    """cohort.json of a run folder."""

    keys: Annotated[dict[ClientName, Key], Field(min_length=2, max_length=MAX_CLIENTS)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({*self.keys.values()}) != len(self.keys):
            raise ValueError("two clients have the same cohort key")
        return self


def read_cohort_file(file: Path) -> dict[str, str]:
    """The keys, in hex, that owners pass on in a YAML file, by client.

    Raises:
        InputError: The file is missing or damaged, or two clients have the same key.
    """
    keys = validate(_CohortFile, {"keys": read_yaml(file)}, str(file)).keys
    if len({*keys.values()}) != len(keys):
        raise InputError(f"{file}: two clients have the same cohort key; {HOW}")
    return keys


def save_cohort_keys(keys: Mapping[str, str], run: Path) -> None:
    """Write the keys of a run's clients into its folder, in place of earlier ones."""
    content = {"keys": dict(sorted(keys.items()))}
    write_atomically(run / COHORT, json.dumps(content, indent=1) + "\n")


def load_cohort_keys(run: Path) -> dict[str, str] | None:
    """The keys of a run's clients; None if the coordinator was given none.

    Raises:
        InputError: The file is damaged.
    """
    path = run / COHORT
    if not path.exists():
        return None
    values = parse_json(read_text(path, MAX_BYTES), str(path), MAX_BYTES)
    return validate(_CohortKeys, values, str(path)).keys
