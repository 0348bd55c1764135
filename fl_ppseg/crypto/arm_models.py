"""What an arm makes of a config's model: its patch embedding reads what its cipher leaves."""

from typing import Final

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.crypto.ciphers.invariance import invariant_form
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
    return model.model_copy(update={"invariant": form})


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
