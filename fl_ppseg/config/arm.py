"""An arm: how images are protected in it, and what becomes of the patch embedding."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fl_ppseg.config.section import Section
from fl_ppseg.system.errors import InputError


class ArmConfig(Section):
    """One setting that a comparison trains."""

    note: Annotated[str, Field(max_length=1_000)]
    """Description of the arm for readers."""
    training: Literal["federated", "centralised", "local-only"] = "federated"
    """federated; all images in one place; or every client alone."""
    key_mode: Literal["plain", "shared", "per-client", "per-image"] = "plain"
    """Whose key: none, one shared by all, one per client, or an independent one per image."""
    cipher: Annotated[str, Field(max_length=200)] | None = None
    """Name of the cipher, or a product such as shuffle+negative-positive; none for plain images."""
    block_scope: Literal["common", "per-block"] | None = None
    """One parameter draw for all blocks of an image, or one per block."""
    key_lifetime: Literal["derived", "disposable"] | None = None
    """Derived from the client's master key, or dropped as soon as the ciphertext is stored."""
    encrypted: Literal["all", "queries"] = "all"
    """queries: trained on plain images; the trained embedding is adapted to encrypted queries."""
    labels: Literal["plain", "encrypted"] = "plain"
    """Label maps of a training node: as they are, or moved with the pixels of each block, under the
    key of their image."""
    embedding: Literal["uploaded", "frozen", "adapted", "private", "invariant"] = "uploaded"
    """The patch embedding: trained and averaged like any layer; public and frozen; adapted to the
    shared key, then trained and averaged; adapted to the client's key and kept by it; or one whose
    output does not depend on the key, trained and averaged."""
    private_rate: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the learning rate of a private embedding; 0 keeps it as adapted."""
    private_start: Literal["adapted", "random"] = "adapted"
    """Start of a training client's private embedding; random reveals nothing of the key."""

    @property
    def only_simulated(self) -> str | None:
        """Why owners on separate machines cannot train it; None if they can."""
        if self.key_mode == "shared":
            return "its owners share one key, which each would have to reveal to the others"
        if self.training == "centralised":
            return "it trains on the images of all owners in one place"
        return None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for wrong, reason in self._contradictions():
            if wrong:
                raise ValueError(reason)
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        cipher_fields = (self.cipher, self.block_scope, self.key_lifetime)
        adapts = self.embedding in ("adapted", "private") or self.encrypted == "queries"
        return [
            (
                self.key_mode == "plain" and any(cipher_fields),
                "key_mode plain does not take cipher, block_scope or key_lifetime",
            ),
            (
                self.key_mode != "plain" and not all(cipher_fields),
                f"key_mode {self.key_mode} needs cipher, block_scope and key_lifetime",
            ),
            (
                self.key_mode in ("shared", "per-client") and self.key_lifetime == "disposable",
                "a key that serves many images cannot be disposable",
            ),
            (
                self.training == "centralised" and self.key_mode == "per-client",
                "centralised has no clients whose keys could differ",
            ),
            (
                self.key_lifetime == "disposable" and adapts,
                "an embedding cannot be adapted to a disposable key, which is not kept",
            ),
            (
                self.block_scope == "per-block" and adapts,
                "one embedding serves all blocks: it cannot be adapted to one key per block",
            ),
            (
                self.embedding == "adapted" and self.key_mode != "shared",
                "an adapted embedding is uploaded, so it can serve one shared key only; "
                "for one key per client use private",
            ),
            (
                self.embedding == "private" and self.key_mode != "per-client",
                "a private embedding is adapted to its client's key: key_mode per-client",
            ),
            (
                self.embedding == "invariant" and self.key_mode == "plain",
                "an invariant embedding is invariant under a cipher: give key_mode and cipher",
            ),
            (
                self.labels == "encrypted" and self.embedding != "invariant",
                "encrypted labels are read by an invariant embedding, whose scores move with the "
                "pixels: embedding invariant",
            ),
            (
                self.labels == "encrypted"
                and (self.key_mode, self.block_scope) != ("per-image", "per-block"),
                "labels that move in one order in many blocks give it away: encrypted labels need "
                "key_mode per-image and block_scope per-block",
            ),
            (
                self.embedding != "private"
                and (self.private_rate > 0 or self.private_start != "adapted"),
                "private_rate and private_start belong to a private embedding",
            ),
            (
                self.private_start == "random" and self.private_rate == 0,
                "a private embedding from a random start must be trained: private_rate above 0",
            ),
            (
                self.encrypted == "queries"
                and (self.key_mode != "shared" or self.embedding != "uploaded"),
                "encrypted: queries is of a model trained on plain images whose users share its "
                "key: key_mode shared, embedding uploaded",
            ),
        ]


def check_labels(arms: Mapping[str, ArmConfig]) -> None:
    """Check that no node gets the label maps of its images in two orders.

    Whoever has a label map both in place and in the order of a ciphertext can tell the order, as
    far as labels differ within a block.

    Raises:
        InputError: One arm stores them as they are, another as encrypted.
    """
    moved = [name for name, arm in arms.items() if arm.labels == "encrypted"]
    plain = [name for name, arm in arms.items() if arm.labels == "plain"]
    if moved and plain:
        raise InputError(
            f"arm {moved[0]} encrypts label maps that arm {plain[0]} stores as they are: a node "
            f"with both can put the first in place; leave {plain[0]} or {moved[0]} out of --arms"
        )


def check_deployable(arms: Mapping[str, ArmConfig]) -> None:
    """Check that owners on separate machines can train all of these arms.

    Raises:
        InputError: An arm needs a shared key or the images of all owners.
    """
    for name, arm in arms.items():
        if (reason := arm.only_simulated) is not None:
            raise InputError(
                f"arm {name}: {reason}; it can only be simulated, so leave it out of --arms"
            )
