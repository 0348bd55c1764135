"""Settings that a command, or the other settings, leave unread: refused where they were asked for.

A value that is given with `--set` and changes nothing is a mistake that should be reported. Files
are exempt: one config serves several commands.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fl_ppseg.config.documents import parse_yaml
from fl_ppseg.config.sections import Config
from fl_ppseg.system.errors import InputError


def refuse_unread(assignments: Iterable[str], unread: Mapping[str, str]) -> None:
    """Refuse a `--set` of what nobody reads.

    Args:
        assignments: `dotted.key=value`, as they were given.
        unread: Keys, or sections as a whole, with the reason and what to do.

    Raises:
        InputError: Names the first key and why it does nothing.
    """
    for text in assignments:
        key, _, value = text.partition("=")
        for leaf in _leaves(key.strip(), parse_yaml(value, f"--set {text!r}")):
            for name, why in unread.items():
                if leaf == name or leaf.startswith(f"{name}."):
                    raise InputError(f"--set {leaf}: {why}")


def unread_settings(config: Config) -> dict[str, str]:
    """What of a config is not read because of its other settings, with the reason."""
    if config.cells:
        return {}  # each cell has settings of its own
    federation, training = config.federation, config.training
    unread: dict[str, str] = {}
    if config.data.root is not None:
        why = "is of procedural scenes, and the images come from data.root; leave one of them out"
        names = ("num_train", "num_val", "num_val_cities", "scene_size", "scene_seed")
        unread |= {f"data.{name}": why for name in names}
    if config.data.fresh_views:
        unread["data.num_views"] = "is not read with data.fresh_views; leave one of them out"
    belongs: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
        ("partition.alpha", "partition.kind", config.partition.kind, ("dirichlet",)),
        ("training.momentum", "training.optimizer", training.optimizer, ("sgd",)),
        ("training.codec_density", "training.codec", training.codec, ("top-k",)),
        ("training.codec_rank", "training.codec", training.codec, ("low-rank",)),
        (
            "federation.server_momentum",
            "federation.strategy",
            federation.strategy,
            ("fedavgm", "fedadam"),
        ),
        (
            "federation.trim_fraction",
            "federation.aggregation",
            federation.aggregation,
            ("trimmed-mean",),
        ),
        (
            "federation.num_byzantine",
            "federation.aggregation",
            federation.aggregation,
            ("krum", "multi-krum"),
        ),
    )
    for name, other, value, readers in belongs:
        if value not in readers:
            unread[name] = (
                f"is read only with {other} {' or '.join(readers)}, got {value}; leave it out"
            )
    return unread


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The dotted keys that an assignment sets."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key
