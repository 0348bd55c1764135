"""What an arm makes of a config's model: its patch embedding reads what its cipher leaves."""

from fl_ppseg.ciphers.invariance import invariant_form
from fl_ppseg.ciphers.registry import CIPHERS
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.errors import InputError


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
