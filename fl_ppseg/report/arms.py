"""How a reader's sentence names an arm, told from the arm's settings; an arm is data here too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fl_ppseg.config import builtin_arms

_TRAINING = {
    "centralised": "Training images in one place",
    "local-only": "Clients that train alone",
}
_KEYS = {
    "per-client": "Per-client keys",
    "per-image": "Per-image keys",
}
_USUAL_CIPHER = "shuffle"


@dataclass(frozen=True)
class ArmText:
    """An arm in words.

    Attributes:
        subject: Begins a sentence, plural.
        note: What the arm stands for, as its config says.
        settings: Key mode, cipher and so on, a few words each.
        encrypted: Whether the model is trained on encrypted images.
        reconstruction: Whether the note says that it rebuilds a published method.
    """

    subject: str
    note: str
    settings: tuple[str, ...]
    encrypted: bool
    reconstruction: bool


def arm_texts(arms: Sequence[str], config: Mapping[str, Any]) -> dict[str, ArmText]:
    """The words for each arm id; arms that would read alike are told apart by their ids."""
    table = {name: arm.model_dump() for name, arm in builtin_arms().items()}
    table |= config.get("arm_table") or {}
    texts = {arm: _arm_text(arm, table.get(arm) or {}) for arm in arms}
    subjects = [text.subject for text in texts.values()]
    return {
        arm: text if subjects.count(text.subject) == 1 else _named(arm, text)
        for arm, text in texts.items()
    }


def _arm_text(arm: str, entry: Mapping[str, Any]) -> ArmText:
    note = str(entry.get("note") or "")
    fields = ("training", "key_mode", "cipher", "block_scope", "key_lifetime", "embedding")
    named = {name: str(entry[name]) for name in fields if entry.get(name)}
    return ArmText(
        subject=_subject(arm, named) if entry else f"Arm {arm}",
        note=note,
        settings=tuple(f"{name.replace('_', ' ')}: {value}" for name, value in named.items()),
        encrypted=named.get("key_mode", "plain") != "plain",
        reconstruction="reconstruction" in note.lower(),
    )


def _subject(arm: str, named: Mapping[str, str]) -> str:
    mode = named.get("key_mode", "plain")
    words = _TRAINING.get(named.get("training", ""), "Plain images")
    if mode != "plain":
        words = _KEYS.get(mode, f"Arm {arm}")
    if named.get("block_scope") == "per-block":
        words += " drawn for each block"
    if named.get("cipher", _USUAL_CIPHER) != _USUAL_CIPHER:
        words += f" ({named['cipher']})"
    embedding = named.get("embedding", "uploaded")
    return words if embedding == "uploaded" else f"{words} with the embedding {embedding}"


def _named(arm: str, text: ArmText) -> ArmText:
    subject = f"{text.subject} [{arm}]"
    return ArmText(subject, text.note, text.settings, text.encrypted, text.reconstruction)
