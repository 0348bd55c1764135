"""`run --cohort`: the public cohort keys with which the coordinator checks advertisements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.deployment.services import Say
from fl_ppseg.federation.cohort_keys import (
    HOW,
    load_cohort_keys,
    read_cohort_file,
    save_cohort_keys,
)
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.errors import InputError

UNCHECKED: Final = (
    "without --cohort FILE one client that signs with another key than the others consented to "
    "ends every round that it is drawn for"
)


def keep_cohort(
    run: RunFolder, federation: FederationConfig, train: Sequence[str], file: Path | None, say: Say
) -> None:
    """Put the keys of a file into the run folder; without a file, those of an earlier start stay.

    Args:
        run: The run folder.
        federation: Of its config.
        train: The run's training clients.
        file: YAML, a line `client: key` each; None: none was given.
        say: Prints a line for the user.

    Raises:
        InputError: The file is damaged, not asked for, or lacks a client.
    """
    if file is None:
        if federation.secure_aggregation and load_cohort_keys(run.path) is None:
            say(UNCHECKED)
        return
    if not federation.secure_aggregation:
        raise InputError(
            "--cohort: the run's config has no federation.secure_aggregation; leave --cohort out"
        )
    keys = read_cohort_file(file)
    if missing := [client for client in train if client not in keys]:
        raise InputError(
            f"{file}: expected the keys of all clients that train, but that of "
            f"{', '.join(missing)} is missing; {HOW}"
        )
    save_cohort_keys(keys, run.path)
