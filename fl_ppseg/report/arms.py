"""What an arm's settings say of its protection; an arm is data here too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms
from fl_ppseg.config.sections import Config

LEFT_BY_CIPHER: Final[Mapping[str, str]] = {
    "shuffle": "the set of its values",
    "shuffle-spatial": "the set of its pixels",
    "negative-positive": "how far each value is from mid-grey",
    "ffx": "half of its values, in place",
    "restricted-shuffle": "two thirds of its values, in place",
    "etc": "the texture of its quarters",
    "shuffle+negative-positive": "the set of distances of its values from mid-grey",
    "shuffle-spatial+negative-positive": "the set of distances of its pixels from mid-grey",
}
"""What a ciphertext leaves of a block where each block has a key of its own."""
LEFT: Final = "what its cipher leaves"
SETTINGS: Final = ("training", "key_mode", "cipher", "block_scope", "key_lifetime", "embedding")


@dataclass(frozen=True)
class ArmText:
    """An arm as a report tells of it.

    Attributes:
        note: What the arm stands for, as its config says.
        settings: Key mode, cipher and so on, a few words each.
        encrypted: Whether the model is trained on encrypted images.
        shared: Whether the parties share a key.
        common: Whether one permutation serves all blocks of an image, which is found from
            ciphertexts alone: such an arm hides nothing from somebody who tries.
        leaves: What its ciphertexts leave of a block; empty where nothing is encrypted.
        picture: The name of its ciphertexts among the pictures of a scene.
    """

    note: str = ""
    settings: tuple[str, ...] = ()
    encrypted: bool = False
    shared: bool = False
    common: bool = False
    leaves: str = ""
    picture: str = ""

    @property
    def reconstruction(self) -> bool:
        """Whether the note says that it rebuilds a published method."""
        return "reconstruction" in self.note.lower()


def arm_texts(arms: Sequence[str], config: Config) -> dict[str, ArmText]:
    """The words for each arm id; an arm that the config does not know has none."""
    table = builtin_arms() | config.arm_table
    return {name: _arm_text(table[name]) if name in table else ArmText() for name in arms}


def _arm_text(arm: ArmConfig) -> ArmText:
    named = {name: getattr(arm, name) for name in SETTINGS}
    if arm.encrypted == "queries":
        named["encrypted"] = "queries"
    if arm.private_rate:
        named["private_rate"] = arm.private_rate
    return ArmText(
        note=arm.note,
        settings=tuple(f"{name.replace('_', ' ')}: {v}" for name, v in named.items() if v),
        encrypted=arm.key_mode != "plain" and arm.encrypted == "all",
        shared=arm.key_mode == "shared",
        common=arm.key_mode != "plain" and arm.block_scope == "common",
        leaves="" if arm.cipher is None else LEFT_BY_CIPHER.get(arm.cipher, LEFT),
        picture="" if arm.cipher is None else f"{arm.cipher}, {arm.block_scope}",
    )
