"""What an owner agrees to before anything is encrypted: in words, confirmed, and by its hash.

A config file comes from the coordinator, so its owner is asked: on a terminal by a question, else
by `--agree HASH`, the hash of the very words that are shown. A named config of the installed
package holds nothing that a coordinator chose; its words are shown and nobody is asked. The ids of
the package's own arms mean what the package says, whatever a config calls so.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clients.node_log import sanitise
from clients.vault.consent.floor import Floor
from clients.vault.consent.terms import Terms, largest_elsewhere
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms, configs_dir
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import InputError

HASH_LENGTH = 40
"""Hex digits: whoever writes both of two configs cannot make their hashes alike."""


_UNBOUNDED = (
    "a coordinator that hands out weights of its own making reads most of a small city's label "
    "maps out of a dozen of them"
)


class Offer(NamedTuple):
    """What is laid before an owner."""

    city: str
    role: Role
    config: Config
    arms: Mapping[str, ArmConfig]
    terms: Mapping[str, Terms]
    floor: Floor
    num_train: int
    num_heldout: int
    start: str
    """Where the weights of round 0 come from (`export.start_weights.start_source`)."""


def check_reserved(config: Config) -> None:
    """Find out whether a config leaves the package's own arms as they are.

    Raises:
        InputError: It redefines one.
    """
    own = builtin_arms()
    for name, arm in config.arm_table.items():
        if name in own and arm != own[name]:
            raise InputError(
                f"arm_table.{name}: is an arm of fl_ppseg, whose owners trust its name; a config "
                "may not redefine it, so ask the coordinator to call its own otherwise"
            )


def is_packaged(config: str) -> bool:
    """Whether `--config` names an experiment of the installed package, and no file."""
    return not Path(config).exists() and (configs_dir() / f"{config}.yaml").is_file()


def agreement_text(offer: Offer) -> str:
    """The agreement, a line each; the same for the same offer, wherever its config lies."""
    return "\n".join(sanitise(line) for line in _lines(offer))


def agreement_hash(text: str) -> str:
    """What `--agree` takes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:HASH_LENGTH]


def confirm(text: str, agree: str | None, *, is_asked: bool) -> None:
    """Have the owner agree to the words that were shown.

    Args:
        text: Of `agreement_text`.
        agree: What the owner gave as `--agree`; None: nothing.
        is_asked: Whether anybody has to agree: not to a config of the package.

    Raises:
        InputError: The owner does not agree, or to something else.
    """
    digest = agreement_hash(text)
    if agree is not None:
        if agree != digest:
            given = sanitise(agree[:HASH_LENGTH])
            raise InputError(
                f"--agree {given}: what is asked for now is another agreement, {digest}; read it "
                "again"
            )
    elif is_asked and sys.stdin is not None and sys.stdin.isatty():
        if input("Do you agree to this? Type yes: ").strip().lower() != "yes":
            raise InputError("not agreed to: nothing was encrypted")
    elif is_asked:
        raise InputError(f"nobody has agreed to this yet; read it above, then add --agree {digest}")


def _lines(offer: Offer) -> Iterator[str]:
    data = offer.config.data
    yield f"What {offer.city} ({offer.role}) agrees to:"
    yield (
        f"  images: {offer.num_train} to train on, {offer.num_heldout} held out, at "
        f"{data.image_size[0]}x{data.image_size[1]} pixels ({data.fit}), {data.num_views} view(s) "
        f"each; classes: {data.classes}"
    )
    yield (
        "  labels: lie on the node as they are, not encrypted; they do not leave it, but updates "
        "and counts tell of them"
    )
    yield f"  seeds: {', '.join(map(str, offer.config.seeds))}"
    for name, arm in offer.arms.items():
        yield from _arm_lines(name, arm, offer.terms[name], offer)
    yield from _in_all(offer)
    yield f"  your floor: {_settings(offer.floor)}"


def _arm_lines(name: str, arm: ArmConfig, terms: Terms, offer: Offer) -> Iterator[str]:
    whose = "of fl_ppseg" if name in builtin_arms() else "of the config's own"
    yield f"  arm {name} ({whose}), {arm.training}:"
    yield f"    images are stored {_protection(arm)}"
    yield f"    patch embedding: {_embedding(arm)}"
    yield f"    model, {terms.num_classes} classes: {_settings(terms.model)}"
    if offer.role == "train":
        yield f"    local update: {_settings(terms.training)}"
        yield from _narrow(terms, offer)
        yield (
            f"    {terms.num_rounds} round(s); in each a local update leaves: "
            f"{_update(arm)}, its loss, the number of images, the time it took"
        )
    yield from _region(terms, offer)
    yield f"    {_evaluation(terms, offer)}"
    yield (
        f"    {terms.spare} more question(s) of each kind and seed where rounds are repeated; "
        "every one is written into the node's ledger"
    )


def _in_all(offer: Offer) -> Iterator[str]:
    """How often the same label maps are asked about: the ledger counts for each arm and seed."""
    num_seeds, terms = len(offer.config.seeds), offer.terms.values()
    is_evaluated = _is_evaluated(offer)
    updates = sum(each.num_rounds + each.spare for each in terms) * num_seeds
    counts = sum(each.evaluations * each.models + each.spare for each in terms if each.evaluations)
    told = [f"{updates} updates"] if offer.role == "train" else []
    told += [f"{counts * num_seeds} counts"] if is_evaluated else []
    yield (
        "  in all: the node counts for each arm and seed, but label maps are the same in all; "
        f"{len(offer.terms)} arm(s) and {num_seeds} seed(s) make "
        f"{' and '.join(told) or 'no answer'} at most"
    )
    if told:
        yield (
            "    WARNING: answers tell of label maps, less than without bounds: a coordinator "
            "can train weights for it that lie no further off than honest ones; noise of the "
            "node's own (privacy in its policy) hides it"
        )


def _region(terms: Terms, offer: Offer) -> Iterator[str]:
    """What weights the node answers to."""
    yield f"    start weights: {offer.start}"
    if offer.config.model.weights not in (None, "shipped"):
        yield (
            "    WARNING: start weights out of a file may themselves be made to tell label maps; "
            "know who made it"
        )
    if terms.max_change is None:
        yield (
            "    weights: ANY up to 1e+06 are answered, for SGD without gradient_clip has "
            "no bound; name one in your floor (max_change), or"
        )
        yield f"    WARNING: {_UNBOUNDED}"
        return
    assumed = largest_elsewhere(offer.num_train)
    why = (
        "as your floor's max_change has it"
        if offer.floor.max_change is not None
        else f"the most that honest training does if no city trains on more than {assumed} images"
    )
    yield (
        f"    weights: refused where one lies further from the start than {terms.max_change:.3g} "
        f"for each round before ({why}); statistics of batch normalisation: up to 1e+06"
    )


def _protection(arm: ArmConfig) -> str:
    if arm.cipher is None:
        return "AS THEY ARE, not encrypted"
    whose = {"per-client": "one key of yours for all images", "per-image": "a key for each image"}
    scope = {"common": "all blocks of an image alike", "per-block": "each block on its own"}
    life = {
        "derived": "derived from your master key: you can decrypt",
        "disposable": "dropped at once: nobody can decrypt",
    }
    key, lifetime = whose.get(arm.key_mode, arm.key_mode), life[arm.key_lifetime or "derived"]
    return f"by {arm.cipher}, {scope[arm.block_scope or 'common']}; {key}, {lifetime}"


def _embedding(arm: ArmConfig) -> str:
    start = f"starts {arm.private_start}, rate {arm.private_rate:g}"
    return {
        "uploaded": "uploaded: trained here, and leaves with each update",
        "frozen": "frozen: public, never trained, never leaves",
        "adapted": "adapted to a shared key, and leaves with each update",
        "private": f"private: adapted to your key, as good as the key, stays here ({start})",
        "invariant": "invariant: the same under every key, and leaves with each update",
    }[arm.embedding]


def _update(arm: ArmConfig) -> str:
    stays = arm.embedding in ("frozen", "private")
    return "all weights but the patch embedding's" if stays else "all weights"


def _evaluation(terms: Terms, offer: Offer) -> str:
    if not _is_evaluated(offer):
        return "never evaluated on the held-out images, as your floor has it"
    models = f"{terms.models} models each" if terms.models > 1 else "one model each"
    return (
        f"evaluated at the start and after {terms.evaluations - 1} round(s), {models}; each time "
        f"leave the counts of all {offer.num_heldout} held-out images together, "
        f"{terms.num_classes}x{terms.num_classes}, their mean loss and the time it took"
    )


def _is_evaluated(offer: Offer) -> bool:
    floor = offer.floor
    return floor.evaluate != "never" and offer.num_heldout >= floor.min_heldout


def _narrow(terms: Terms, offer: Offer) -> Iterator[str]:
    """README's rule of thumb, held against this config."""
    height, width = offer.config.data.image_size
    side, wide = terms.model.patch_size, terms.model.embed_dim
    if side is None or wide is None:
        return
    num_views = min(terms.training.batch_size, terms.training.images_a_pass(offer.num_train))
    num_tokens = num_views * (height // side) * (width // side)
    if num_tokens <= wide:
        yield (
            f"    WARNING: a step has {num_tokens} tokens and the model is {wide} wide; models "
            "wider than their tokens give images away"
        )


def _settings(section: Section) -> str:
    values = section.model_dump(mode="json")
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items() if _is_set(value))


def _is_set(value: object) -> bool:
    return value is not None and value is not False


def _value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(str, value))
    return str(value)
