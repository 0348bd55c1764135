"""The owner's floor: the least protection that it accepts, whoever sent the config.

    <vault>/<client>/floor.yaml    written by `new`; only its owner may change it

A config comes from the coordinator. It may ask for more protection than the floor, never for less;
a config that does is refused with the name of the field, its limit and this file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, model_validator

from clients.policy.node_policy import NodePolicy
from clients.policy.owned_file import read_owned
from clients.vault.consent.terms import Terms
from clients.vault.layout import FLOOR
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.documents import parse_yaml
from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.loading import builtin_arms, validate
from fl_ppseg.config.section import Section
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_BYTES: Final = 2**16
Count = Annotated[int, Field(ge=0, le=10**6)]
Positive = Annotated[int, Field(ge=1, le=10**6)]


class Floor(Section):
    """Limits that an owner sets on every config."""

    own_arms: bool = True
    """Whether a config may define arms of its own, in addition to those of fl_ppseg."""
    key_modes: tuple[Literal["plain", "per-client", "per-image"], ...] = (
        "plain",
        "per-client",
        "per-image",
    )
    """Key modes that are allowed; plain also requires --allow-plain."""
    ciphers: tuple[Annotated[str, Field(max_length=100)], ...] = (
        "shuffle",
        "shuffle+negative-positive",
        "shuffle-spatial",
        "shuffle-spatial+negative-positive",
    )
    """Ciphers that are allowed; products of several by their whole names."""
    block_scopes: tuple[Literal["common", "per-block"], ...] = ("common", "per-block")
    """With per-block only, each block of an image is encrypted differently."""
    key_lifetimes: tuple[Literal["derived", "disposable"], ...] = ("derived", "disposable")
    """With disposable only, keys are deleted at once: nobody can ever decrypt, not even you."""
    embeddings: tuple[Literal["uploaded", "frozen", "private", "invariant"], ...] = (
        "uploaded",
        "frozen",
        "private",
        "invariant",
    )
    """How the patch embedding may be treated; uploaded ones reveal plain training images best."""
    min_patch_size: Positive = 8
    """Smallest side of a patch in pixels: small patches read a ciphertext pixel by pixel."""
    min_batch_size: Positive = 4
    """Fewest views per step: with one image and one step an update is that image's gradient."""
    min_pass_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest share of your images that a pass uses: a small share works like a small batch."""
    max_rounds: Positive = 2000
    """Most rounds: steps late in very many rounds are so small that crafted weights reveal images
    exactly."""
    max_evaluations: Count = 200
    """Most evaluations on the held-out images: counts of many models reveal their labels."""
    min_heldout: Positive = 2
    """Fewest held-out images to evaluate on: counts of a single image describe that image."""
    secure_aggregation: bool = False
    """true: no update leaves the node unmasked; the coordinator sees sums over several clients."""
    least_cohort: Annotated[int, Field(ge=2, le=10**4)] = 3
    """Fewest clients in such a sum, where a config asks for secure aggregation."""
    evaluate: Literal["agreed", "never"] = "agreed"
    """With never, no counts of the held-out images leave the node, whatever was agreed to."""

    max_loss_ratio: Annotated[float, Field(gt=1, le=1e6)] | None = None
    """Refuse weights whose loss on your held-out images is more than so many times the least that
    your node accepted; 2 was above all honest rounds that were looked at. Each refusal tells the
    coordinator that the loss is above it, and each request takes the time of an evaluation. null:
    the loss is not looked at."""
    max_change: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """The most that honest training moves a weight in a round; null: computed from the config. Set
    it lower, and it falls with the learning rate as the computed one does; or higher if other
    owners add noise, and it holds in every round."""

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        for name in ("key_modes", "block_scopes", "key_lifetimes", "embeddings"):
            if not getattr(self, name):
                raise ValueError(f"{name} allows nothing; list what is allowed, or delete the line")
        return self


def make_floor(vault: Path) -> Path | None:
    """Write the default floor of a new vault, with comments; an existing floor is kept.

    Returns:
        The file if it was written; None if it existed.
    """
    path = vault / FLOOR
    if path.is_symlink() or path.exists():
        return None
    write_atomically(path, default_text(), mode=0o600)
    return path


def default_text() -> str:
    """The default floor as YAML, each field under its explanation."""
    lines = [
        "# Your floor: the least protection that you accept. `encrypt` refuses configs below it."
    ]
    values = Floor().model_dump(mode="json")
    for name, field in Floor.model_fields.items():
        words = " ".join((field.description or "").split())
        value = yaml.safe_dump(values[name], default_flow_style=True, width=200).splitlines()[0]
        lines += ["", f"# {words}", f"{name}: {value}"]
    return "\n".join(lines) + "\n"


def read_floor(vault: Path) -> Floor:
    """The owner's floor.

    Raises:
        InputError: It is missing, malformed, a link, another user's, or open to others.
    """
    path = vault / FLOOR
    if not (path.is_symlink() or path.exists()):
        raise InputError(
            f"{path}: missing, so the least protection that you accept is unknown; restore it, or "
            "write one with the defaults: python -m clients.vault floor"
        )
    return validate(Floor, parse_yaml(read_owned(path, MAX_BYTES, "floor"), str(path)), str(path))


def check_floor(
    floor: Floor, path: Path, name: str, arm: ArmConfig, terms: Terms, role: Role
) -> None:
    """Check that an arm gives at least the protection of the floor.

    Args:
        floor: The owner's.
        path: Its file, for messages.
        name: Id of the arm.
        arm: Its settings.
        terms: What its requests may ask.
        role: Of the node.

    Raises:
        InputError: It gives less.
    """
    for what, got, field in _violations(floor, name, arm, terms, role):
        limit = getattr(floor, field)
        text = ", ".join(limit) if isinstance(limit, tuple) else limit
        raise InputError(
            f"arm {name}: {what} {got}, but your floor has {field}: {text} ({path}); leave the "
            "arm out of --arms, ask the coordinator for another config, or change your floor"
        )


def check_heldout(floor: Floor, path: Path, num_heldout: int, role: Role) -> None:
    """Check that a node that only evaluates can do so under the floor.

    Raises:
        InputError: It cannot.
    """
    if role == "val" and floor.evaluate == "never":
        raise InputError(
            f"a val client only evaluates, but your floor has evaluate: never ({path}); change "
            "your floor, or do not take part as a val client"
        )
    if role == "val" and num_heldout < floor.min_heldout:
        raise InputError(
            f"{num_heldout} held-out images, but your floor has min_heldout: {floor.min_heldout} "
            f"({path}), so the node would refuse every evaluation; add images, or change your floor"
        )


def check_sums(floor: Floor, path: Path, federation: FederationConfig, role: Role) -> None:
    """Check that a config hides updates in sums as far as the floor wants it.

    Raises:
        InputError: It does not.
    """
    if role == "val":
        return
    if floor.secure_aggregation and not federation.secure_aggregation:
        raise InputError(
            "the config has no federation.secure_aggregation, but your floor has "
            f"secure_aggregation: true ({path}); ask the coordinator for another config, or change "
            "your floor"
        )
    if federation.secure_aggregation and federation.least_cohort < floor.least_cohort:
        raise InputError(
            f"federation.least_cohort {federation.least_cohort}, but your floor has least_cohort: "
            f"{floor.least_cohort} ({path}); ask the coordinator for another config, or change "
            "your floor"
        )


def apply_floor(floor: Floor, policy: NodePolicy) -> NodePolicy:
    """A policy that is at least as strict as the floor; stricter settings are kept."""
    is_never = "never" in (floor.evaluate, policy.evaluate)
    ratios = [r for r in (floor.max_loss_ratio, policy.max_loss_ratio) if r is not None]
    update = {
        "evaluate": "never" if is_never else "agreed",
        "min_heldout": max(floor.min_heldout, policy.min_heldout),
        "max_loss_ratio": min(ratios, default=None),
    }
    return policy.model_copy(update=update)


def _violations(
    floor: Floor, name: str, arm: ArmConfig, terms: Terms, role: Role
) -> Iterator[tuple[str, object, str]]:
    """What is below the floor: its name, the value asked for, and the field of the floor."""
    if not floor.own_arms and name not in builtin_arms():
        yield "is", "defined by the config", "own_arms"
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
