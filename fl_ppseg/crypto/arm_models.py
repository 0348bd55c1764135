"""What an arm makes of a config's model: its patch embedding reads what its cipher leaves."""

from typing import Final

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.crypto.ciphers.invariance import invariant_form
from fl_ppseg.crypto.ciphers.pixel_moves import moves_whole_pixels
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.system.errors import InputError

SHUFFLED: Final = "shuffled"
"""Ciphertexts of `shuffle`, each under a key that the embedding was not made for."""


def model_settings(model: ModelConfig, name: str, arm: ArmConfig) -> ModelConfig:
    """Section `model` as an arm wants it: an invariant embedding reads what its cipher leaves.

    Raises:
        InputError: Nothing that an embedding could read survives the cipher, or the config wants
            an invariant embedding where the arm has another.
    """
    in_place = arm.key_mode != "plain" and arm.labels == "plain"
    if model.pixel_head and in_place:
        raise InputError(
            f"arm {name}: model.pixel_head scores the pixels of a ciphertext, whose labels are in "
            "the image's order; leave it out, or give the arm labels: encrypted"
        )
    if arm.embedding != "invariant":
        if arm.key_mode != "plain" and model.invariant is not None:
            raise InputError(
                f"arm {name}: its embedding reads images as they come, model.invariant is "
                f"{model.invariant}; leave it out, or give the arm embedding: invariant"
            )
        return model
    form = None if arm.cipher is None else invariant_form(arm.cipher)
    if form is None:
        others = ", ".join(cipher for cipher in CIPHERS if invariant_form(cipher))
        raise InputError(
            f"arm {name}: cipher {arm.cipher} has no invariant embedding; ciphers that have one: "
            f"{others}, and products of them"
        )
    if arm.labels == "encrypted" and not moves_whole_pixels(str(arm.cipher)):
        raise InputError(
            f"arm {name}: labels can be encrypted where pixels move whole, cipher {arm.cipher} "
            "breaks them up; use shuffle-spatial or shuffle-spatial+negative-positive, or leave "
            "labels plain"
        )
    return model.model_copy(update={"invariant": form, "pixel_head": arm.labels == "encrypted"})


def embedding_reads(model: ModelConfig, arm: ArmConfig) -> str | None:
    """What the patch embedding of an arm reads, which says what weights it is to start from.

    Args:
        model: Of `model_settings`.
        arm: The arm.

    Returns:
        A canonical form; `SHUFFLED`, where a linear embedding serves ciphertexts under keys that
        nobody shares; None for images: as they are, under a key that the embedding is adapted to,
        or under one that all share, where papers start from weights for plain images too.
    """
    is_linear = arm.embedding in ("uploaded", "frozen")
    if is_linear and arm.key_mode in ("per-client", "per-image") and arm.cipher == "shuffle":
        return SHUFFLED
    return model.invariant
