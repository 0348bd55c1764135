"""What an agreement says of an arm: its protection, its embedding, its settings."""

from collections.abc import Collection, Sequence

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.section import Section


def protection_text(arm: ArmConfig) -> str:
    """How the images of an arm are stored."""
    if arm.cipher is None:
        return "PLAIN, not encrypted"
    whose = {"per-client": "one key of yours for all images", "per-image": "one key per image"}
    scope = {"common": "all blocks of an image alike", "per-block": "each block differently"}
    life = {
        "derived": "derived from your master key: you can decrypt",
        "disposable": "deleted at once: nobody can decrypt",
    }
    key, lifetime = whose.get(arm.key_mode, arm.key_mode), life[arm.key_lifetime or "derived"]
    return f"encrypted with {arm.cipher}, {scope[arm.block_scope or 'common']}; {key}, {lifetime}"


def embedding_text(arm: ArmConfig) -> str:
    """How the patch embedding of an arm is treated."""
    start = f"starts {arm.private_start}, rate {arm.private_rate:g}"
    return {
        "uploaded": "uploaded: trained on the node, and leaves it with each update",
        "frozen": "frozen: public, never trained, never leaves the node",
        "adapted": "adapted to a shared key, and leaves the node with each update",
        "private": f"private: adapted to your key and reveals it, never leaves the node ({start})",
        "invariant": "invariant: the same under every key, and leaves the node with each update",
    }[arm.embedding]


def settings_text(section: Section, without: Collection[str] = ()) -> str:
    """The settings of a section that are set, but for some."""
    values = section.model_dump(mode="json", exclude={*without})
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items() if _is_set(value))


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(str, value))
    return str(value)
