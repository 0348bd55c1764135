"""With whom an owner lets its node's updates be added up: the cohort keys of a file, checked.

The file is YAML, a line `client: key` for each training client, as the owners told each other
(`python -m clients.vault cohort` prints one's own line). The coordinator may pass it on; it cannot
make it up, for the agreement shows each key, and owners compare them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.federation.cohort_keys import HOW, read_cohort_file
from fl_ppseg.system.errors import InputError


class Cohort(NamedTuple):
    """Fields as in `clients.policy.node_policy.CohortPolicy`."""

    keys: dict[str, str]
    least: int
    bound: float | None


def cohort_of(
    federation: FederationConfig, file: Path | None, client: str, own_key: str | None
) -> Cohort | None:
    """The cohort that a config asks an owner to consent to; None without secure aggregation.

    Args:
        federation: Of the config.
        file: Of the cohort keys.
        client: The owner's.
        own_key: Its public cohort key; None: it has none yet.

    Raises:
        InputError: The file is missing, damaged, not asked for, or not of this client.
    """
    if not federation.secure_aggregation:
        if file is not None:
            raise InputError(
                "--cohort: the config has no federation.secure_aggregation; leave --cohort out"
            )
        return None
    if own_key is None:
        raise InputError(
            "federation.secure_aggregation needs a cohort key of yours; make one with "
            "`python -m clients.vault cohort`"
        )
    if file is None:
        raise InputError(
            "federation.secure_aggregation needs --cohort FILE, the cohort keys of all training "
            f"clients; {HOW}"
        )
    keys = read_cohort_file(file)
    if keys.get(client) != own_key:
        raise InputError(f"{file}: expected your own line, {client}: {own_key}; {HOW}")
    if len(keys) < federation.least_cohort:
        raise InputError(
            f"{file}: expected the keys of at least {federation.least_cohort} clients "
            f"(federation.least_cohort), got {len(keys)}"
        )
    return Cohort(keys, federation.least_cohort, federation.update_bound)


def cohort_lines(cohort: Cohort | None) -> Iterator[str]:
    """What the agreement says of it; nothing without secure aggregation."""
    if cohort is None:
        return
    bound = "what the training can do at most" if cohort.bound is None else f"{cohort.bound:g}"
    yield (
        "  secure aggregation: your updates leave the node masked; the coordinator learns sums "
        f"over at least {cohort.least} of these {len(cohort.keys)} clients, and no single update; "
        f"each is clipped to {bound} a weight; the number of images and the loss are not masked"
    )
    yield "    cohort keys, to compare with what each owner says its own is:"
    for client, key in sorted(cohort.keys.items()):
        yield f"      {client}: {key}"
    yield (
        "    WARNING: the other owners together can subtract their own updates from a sum; clients "
        "that the coordinator runs itself hide nobody"
    )
