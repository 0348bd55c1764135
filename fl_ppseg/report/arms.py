"""How a reader's sentence names an arm, told from the arm's settings; an arm is data here too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fl_ppseg.config.loading import builtin_arms

_TRAINING = {
    "centralised": "Training images in one place",
    "local-only": "Clients that train alone",
}
_KEYS = {
    "shared": "Images under one shared key",
    "per-client": "Per-client keys",
    "per-image": "Per-image keys",
}
_QUERIES = "Plain training images with queries under one shared key"
_EMBEDDINGS = {
    "frozen": "a frozen embedding",
    "adapted": "an adapted embedding",
    "private": "a private embedding",
    "invariant": "an invariant embedding",
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
        shared: Whether the parties share a key.
        tailored: Whether the embedding is made for keys that nobody shares: private or invariant.
        common: Whether one permutation serves all blocks of an image, which is found from
            ciphertexts alone: such an arm hides nothing from somebody who tries.
        reconstruction: Whether the note says that it rebuilds a published method.
    """

    subject: str
    note: str
    settings: tuple[str, ...]
    encrypted: bool
    shared: bool
    tailored: bool
    common: bool
    reconstruction: bool


def arm_texts(arms: Sequence[str], config: Mapping[str, Any]) -> dict[str, ArmText]:
    """The words for each arm id; arms that would read alike are told apart by their ids."""
    table = {name: arm.model_dump() for name, arm in builtin_arms().items()}
    table |= config.get("arm_table") or {}
    texts = {arm: _arm_text(arm, table.get(arm) or {}) for arm in arms}
    subjects = [text.subject for text in texts.values()]
    return {
        arm: text
        if subjects.count(text.subject) == 1
        else replace(text, subject=f"{text.subject} [{arm}]")
        for arm, text in texts.items()
    }


def _arm_text(arm: str, entry: Mapping[str, Any]) -> ArmText:
    note = str(entry.get("note") or "")
    fields = ("training", "key_mode", "cipher", "block_scope", "key_lifetime", "embedding")
    named = {name: str(entry[name]) for name in fields if entry.get(name)}
    mode = named.get("key_mode", "plain")
    if entry.get("encrypted") == "queries":
        named["encrypted"] = "queries"
    if entry.get("private_rate"):
        named["private_rate"] = str(entry["private_rate"])
    return ArmText(
        subject=_subject(arm, named) if entry else f"Arm {arm}",
        note=note,
        settings=tuple(f"{name.replace('_', ' ')}: {value}" for name, value in named.items()),
        encrypted=mode != "plain" and "encrypted" not in named,
        shared=mode == "shared",
        tailored=named.get("embedding") in ("private", "invariant"),
        common=mode != "plain" and named.get("block_scope") == "common",
        reconstruction="reconstruction" in note.lower(),
    )


def _subject(arm: str, named: Mapping[str, str]) -> str:
    mode = named.get("key_mode", "plain")
    words = _TRAINING.get(named.get("training", ""), "Plain images")
    if mode != "plain":
        words = _QUERIES if "encrypted" in named else _KEYS.get(mode, f"Arm {arm}")
    if named.get("block_scope") == "per-block":
        words += " drawn for each block"
    if named.get("cipher", _USUAL_CIPHER) != _USUAL_CIPHER:
        words += f" ({named['cipher']})"
    embedding = _EMBEDDINGS.get(named.get("embedding", ""))
    return f"{words} with {embedding}" if embedding else words
