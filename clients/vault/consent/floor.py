"""The owner's floor: below what no config goes, whoever sent it.

    <vault>/<city>/floor.yaml    made by `new`; its owner's to change, and nobody else's

A config comes from the coordinator. It may ask for more protection than the floor, never for less:
what is below is refused in a line that names the field, the floor and this file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, model_validator

from clients.policy.owned_file import read_owned
from clients.policy.policy import NodePolicy
from clients.vault.consent.terms import Terms
from clients.vault.layout import FLOOR
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.documents import parse_yaml
from fl_ppseg.config.loading import builtin_arms, validate
from fl_ppseg.config.section import Section
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_BYTES: Final = 2**16
Count = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[int, Field(ge=1, le=10**6)]


class Floor(Section):
    """What an owner gives at most, in the owner's own words."""

    own_arms: bool = True
    """Whether a config may bring arms of its own, beside those of fl_ppseg."""
    key_modes: tuple[Literal["plain", "per-client", "per-image"], ...] = (
        "plain",
        "per-client",
        "per-image",
    )
    """Whose key; plain wants --allow-plain besides."""
    ciphers: tuple[Annotated[str, Field(max_length=100)], ...] = (
        "shuffle",
        "shuffle+negative-positive",
        "shuffle-spatial",
        "shuffle-spatial+negative-positive",
    )
    """Ciphers, whole names of products."""
    block_scopes: tuple[Literal["common", "per-block"], ...] = ("common", "per-block")
    """per-block alone: no block of an image is encrypted like another."""
    key_lifetimes: tuple[Literal["derived", "disposable"], ...] = ("derived", "disposable")
    """disposable alone: keys are dropped at once, so that nobody ever decrypts, you neither."""
    embeddings: tuple[Literal["uploaded", "frozen", "private", "invariant"], ...] = (
        "uploaded",
        "frozen",
        "private",
        "invariant",
    )
    """How the patch embedding may be treated; uploaded ones show images of plain training best."""
    min_patch_size: Positive = 8
    """Side of a patch in pixels: small ones read a ciphertext pixel by pixel."""
    min_batch_size: Positive = 4
    """Views a step: of one image and one step an update is that image's gradient."""
    min_pass_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of your images that a pass sees: few of them are a small batch by another name."""
    max_rounds: Positive = 2000
    """Rounds: late in many of them steps are so small that made weights show images exactly."""
    max_evaluations: Count = 200
    """Rounds that are scored on the held-out images: counts of many models tell their labels."""
    min_heldout: Positive = 2
    """Held-out images below which nothing is evaluated: counts of one image are that image's."""
    evaluate: Literal["agreed", "never"] = "agreed"
    """never: no counts of the held-out images leave the node, whatever is agreed."""

    max_change: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """The most that honest training moves a weight in a round, in place of what is worked out from
    the config: smaller, or larger where other owners add noise of their own; null: worked out."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        for name in ("key_modes", "block_scopes", "key_lifetimes", "embeddings"):
            if not getattr(self, name):
                raise ValueError(f"{name} allows nothing; name what may be, or delete the line")
        return self


def make_floor(vault: Path) -> Path | None:
    """Write the floor of a new vault, with what each field means; one that is there stays.

    Returns:
        Its file where it was made; None where it was there.
    """
    path = vault / FLOOR
    if path.is_symlink() or path.exists():
        return None
    write_atomically(path, default_text(), mode=0o600)
    return path


def default_text() -> str:
    """The default floor as YAML, each field under its explanation."""
    lines = ["# Your floor: below what no config goes, whoever sent it. `encrypt` reads it."]
    values = Floor().model_dump(mode="json")
    for name, field in Floor.model_fields.items():
        words = " ".join((field.description or "").split())
        value = yaml.safe_dump(values[name], default_flow_style=True, width=200).splitlines()[0]
        lines += ["", f"# {words}", f"{name}: {value}"]
    return "\n".join(lines) + "\n"


def read_floor(vault: Path) -> Floor:
    """The owner's floor.

    Raises:
        InputError: It is missing, of another form, a link, of somebody else, or open to others.
    """
    path = vault / FLOOR
    if not (path.is_symlink() or path.exists()):
        raise InputError(
            f"{path}: missing, so nobody knows below what you will not go; put yours back, or make "
            "one with the defaults: python -m clients.vault floor"
        )
    return validate(Floor, parse_yaml(read_owned(path, MAX_BYTES, "floor"), str(path)), str(path))


def check_floor(
    floor: Floor, path: Path, name: str, arm: ArmConfig, terms: Terms, role: Role
) -> None:
    """Find out whether an arm asks for no less protection than the floor.

    Args:
        floor: The owner's.
        path: Its file, for messages.
        name: Id of the arm.
        arm: Its settings.
        terms: What its requests may ask.
        role: Of the node.

    Raises:
        InputError: It asks for less.
    """
    for what, got, field in _violations(floor, name, arm, terms, role):
        wanted = getattr(floor, field)
        text = ", ".join(wanted) if isinstance(wanted, tuple) else wanted
        raise InputError(
            f"arm {name}: {what} {got}, but your floor says {field}: {text} ({path}); leave the "
            "arm out of --arms, ask the coordinator for another config, or change your floor"
        )


def check_heldout(floor: Floor, path: Path, num_heldout: int, role: Role) -> None:
    """Find out whether a node that only evaluates could do so.

    Raises:
        InputError: It could not.
    """
    if role == "val" and floor.evaluate == "never":
        raise InputError(
            f"a val city is there to be evaluated on, but your floor says evaluate: never ({path})"
        )
    if role == "val" and num_heldout < floor.min_heldout:
        raise InputError(
            f"{num_heldout} held-out images, but your floor says min_heldout: {floor.min_heldout} "
            f"({path}); a val city with fewer answers nothing"
        )


def apply_floor(floor: Floor, policy: NodePolicy) -> NodePolicy:
    """A policy that is as strict as the floor, and stays so where its owner made it stricter."""
    is_never = "never" in (floor.evaluate, policy.evaluate)
    update = {
        "evaluate": "never" if is_never else "agreed",
        "min_heldout": max(floor.min_heldout, policy.min_heldout),
    }
    return policy.model_copy(update=update)


def _violations(
    floor: Floor, name: str, arm: ArmConfig, terms: Terms, role: Role
) -> Iterator[tuple[str, object, str]]:
    """What is below the floor: in words, the value asked for, and the field of the floor."""
    if not floor.own_arms and name not in builtin_arms():
        yield "is", "of the config's own", "own_arms"
    kinds = [
        ("key_mode", arm.key_mode, "key_modes"),
        ("cipher", arm.cipher, "ciphers"),
        ("block_scope", arm.block_scope, "block_scopes"),
        ("key_lifetime", arm.key_lifetime, "key_lifetimes"),
        ("embedding", arm.embedding, "embeddings"),
    ]
    for what, got, field in kinds:
        if got is not None and got not in getattr(floor, field):
            yield what, got, field
    patch_size = terms.model.patch_size or 0
    if patch_size < floor.min_patch_size:
        yield "patch_size", patch_size, "min_patch_size"
    if role == "train" and terms.training.batch_size < floor.min_batch_size:
        yield "batch_size", terms.training.batch_size, "min_batch_size"
    if role == "train" and terms.training.pass_fraction < floor.min_pass_fraction:
        yield "pass_fraction", terms.training.pass_fraction, "min_pass_fraction"
    if terms.num_rounds > floor.max_rounds:
        yield "num_rounds", terms.num_rounds, "max_rounds"
    if terms.evaluations > floor.max_evaluations:
        yield "evaluations", terms.evaluations, "max_evaluations"
