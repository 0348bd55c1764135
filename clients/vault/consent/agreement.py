"""The agreement that an owner accepts before anything is encrypted: its text, hash and consent.

A config file comes from the coordinator, so the owner is asked: on a terminal by a question, else
with `--agree HASH`, the hash of the text that is shown. A named config of the installed package
holds nothing that a coordinator chose; its text is shown and nobody is asked. The ids of the
package's own arms always mean what the package defines.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from clients.node_log import sanitise
from clients.vault.consent.arm_words import embedding_text, protection_text, settings_text
from clients.vault.consent.cohort import Cohort, cohort_lines
from clients.vault.consent.floor import Floor
from clients.vault.consent.terms import Terms, largest_elsewhere
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import builtin_arms, configs_dir
from fl_ppseg.config.sections import CODEC, Config, TrainingConfig
from fl_ppseg.federation.roles import Role
from fl_ppseg.system.errors import InputError

HASH_LENGTH = 40
"""Hex digits: enough that nobody can write two configs with the same hash."""


_UNBOUNDED = (
    "without a bound, a coordinator that sends crafted weights can read most of a small client's "
    "label maps from a dozen answers"
)


class Offer(NamedTuple):
    """What an owner is asked to agree to."""

    client: str
    role: Role
    config: Config
    arms: Mapping[str, ArmConfig]
    terms: Mapping[str, Terms]
    floor: Floor
    num_train: int
    num_heldout: int
    cohort: Cohort | None
    """With whom updates are added up; None: each leaves the node on its own."""
    start: str
    """Where the weights of round 0 come from (`export.start_weights.start_source`)."""


def check_reserved(config: Config) -> None:
    """Check that a config does not redefine the package's own arms.

    Raises:
        InputError: It redefines one.
    """
    own = builtin_arms()
    for name, arm in config.arm_table.items():
        if name in own and arm != own[name]:
            raise InputError(
                f"arm_table.{name}: redefines an arm of fl_ppseg, whose meaning owners rely on; "
                "ask the coordinator to give its own arm another name"
            )


def is_packaged(config: str) -> bool:
    """Whether `--config` names an experiment of the installed package and not a file."""
    return not Path(config).exists() and (configs_dir() / f"{config}.yaml").is_file()


def agreement_text(offer: Offer) -> str:
    """The agreement as lines of text; equal offers give equal text, wherever the config lies."""
    return "\n".join(sanitise(line) for line in _lines(offer))


def agreement_hash(text: str) -> str:
    """The hash of an agreement, as `--agree` expects it."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:HASH_LENGTH]


def confirm(text: str, agree: str | None, *, is_asked: bool) -> None:
    """Require that the owner agrees to the text that was shown.

    Args:
        text: Of `agreement_text`.
        agree: Value of `--agree`; None if it was not given.
        is_asked: Whether the owner has to agree; not to a config of the package.

    Raises:
        InputError: The owner does not agree, or agreed to something else.
    """
    digest = agreement_hash(text)
    if agree is not None:
        if agree != digest:
            given = sanitise(agree[:HASH_LENGTH])
            raise InputError(
                f"--agree {given}: expected {digest}, the hash of the agreement above; it is "
                "another agreement now, so read it again"
            )
    elif is_asked and sys.stdin is not None and sys.stdin.isatty():
        if input("Do you agree to this? Type yes: ").strip().lower() != "yes":
            raise InputError("not agreed to: nothing was encrypted")
    elif is_asked:
        raise InputError(
            f"nobody has agreed to this yet; read the agreement above, then add --agree {digest}"
        )


def _lines(offer: Offer) -> Iterator[str]:
    data = offer.config.data
    yield f"What {offer.client} ({offer.role}) agrees to:"
    yield (
        f"  images: {offer.num_train} to train on, {offer.num_heldout} held out, at "
        f"{data.sizes_text}, {_views(offer.config)}; classes: {data.classes}"
    )
    yield from _label_lines(offer)
    yield f"  seeds: {', '.join(map(str, offer.config.seeds))}"
    yield from cohort_lines(offer.cohort)
    for name, arm in offer.arms.items():
        yield from _arm_lines(name, arm, offer.terms[name], offer)
    yield from _in_all(offer)
    yield f"  your floor: {settings_text(offer.floor)}"


def _label_lines(offer: Offer) -> Iterator[str]:
    """How label maps are stored, by the arms that store them so."""
    told = "they do not leave it, but updates and counts reveal something about them"
    moved = [name for name, arm in offer.arms.items() if arm.labels == "encrypted"]
    if len(moved) < len(offer.arms):
        yield f"  labels: stored on the node unencrypted; {told}"
    if moved:
        yield (
            f"  labels for {', '.join(moved)}: stored in the order of the encrypted pixels, which "
            f"tells what each block shows and not where in it; {told}"
        )


def _arm_lines(name: str, arm: ArmConfig, terms: Terms, offer: Offer) -> Iterator[str]:
    whose = "of fl_ppseg" if name in builtin_arms() else "of the config's own"
    yield f"  arm {name} ({whose}), {arm.training}:"
    yield f"    images are stored {protection_text(arm)}"
    yield f"    patch embedding: {embedding_text(arm)}"
    yield f"    model, {terms.num_classes} classes: {settings_text(terms.model)}"
    if offer.role == "train":
        yield from _fresh_lines(arm, terms, offer)
        without = CODEC if terms.training.travels_as_it_is else ()
        yield f"    local update: {settings_text(terms.training, without=without)}"
        yield from _narrow(terms, offer)
        yield (
            f"    {terms.num_rounds} round(s); what leaves the node in each: "
            f"{_update(arm, terms.training)}, the loss, the number of images, the time it took"
        )
        if terms.training.codec != "fp32":
            yield (
                "    what coding loses of an update stays on the node, three versions of 4 bytes a "
                "weight and seed, and is added to its next updates"
            )
    yield from _region(terms, offer)
    yield f"    {_evaluation(terms, offer)}"
    yield (
        f"    {terms.spare} more question(s) of each kind and seed in case rounds are repeated; "
        "each one is recorded in the node's ledger"
    )


def _views(config: Config) -> str:
    """How many views of a training image there are."""
    if not config.data.fresh_views:
        return f"{config.data.num_views} view(s) each"
    return f"{config.training.local_epochs} new view(s) of each training image in every round"


def _fresh_lines(arm: ArmConfig, terms: Terms, offer: Offer) -> Iterator[str]:
    """How many ciphertexts of an image the node gets, where rounds have views of their own."""
    if not offer.config.data.fresh_views:
        return
    each = terms.training.local_epochs
    under = {
        "plain": "unencrypted",
        "per-client": "all under your one key",
        "per-image": "each under a key of its own",
    }
    yield (
        f"    fresh views: the node gets at most {terms.num_rounds} x {each} = "
        f"{terms.num_rounds * each} views of each image and seed over the run, about one of four "
        f"the image itself, {under.get(arm.key_mode, 'all under one key')}; it needs two rounds' "
        "at a time, but whoever copies them keeps them all"
    )
    if arm.key_mode != "plain":
        yield (
            "    WARNING: many views of an image, lined up, show far more of it than one, whatever "
            "their keys; only a node that you trust to forget them keeps that from happening"
        )


def _in_all(offer: Offer) -> Iterator[str]:
    """How many answers depend on the same label maps: the ledger counts per arm and seed."""
    num_seeds, terms = len(offer.config.seeds), offer.terms.values()
    is_evaluated = _is_evaluated(offer)
    updates = sum(each.num_rounds + each.spare for each in terms) * num_seeds
    counts = sum(each.evaluations * each.models + each.spare for each in terms if each.evaluations)
    answers = [f"{updates} updates"] if offer.role == "train" else []
    answers += [f"{counts * num_seeds} counts"] if is_evaluated else []
    yield (
        "  in total: the node counts per arm and seed, but the label maps are the same in all; "
        f"{len(offer.terms)} arm(s) and {num_seeds} seed(s) make at most "
        f"{' and '.join(answers) or 'no answer'}"
    )
    if answers:
        yield (
            "    WARNING: answers reveal something about label maps, even within these bounds: a "
            "coordinator can train weights for that which lie as near to the start as honest "
            "ones; noise that the node adds (privacy in its policy) hides it"
        )


def _region(terms: Terms, offer: Offer) -> Iterator[str]:
    """Which weights the node accepts."""
    yield f"    start weights: {offer.start}"
    if offer.config.model.weights not in (None, "shipped"):
        yield (
            "    WARNING: start weights from a file may be crafted to reveal label maps; make sure "
            "that you trust whoever made it"
        )
    if terms.max_change is None:
        yield (
            "    weights: ANY up to 1e+06 are accepted, because SGD without gradient_clip has no "
            "bound; set one in your floor (max_change)"
        )
        yield f"    WARNING: {_UNBOUNDED}"
        return
    assumed = largest_elsewhere(offer.num_train)
    why = (
        "max_change of your floor"
        if offer.floor.max_change is not None
        else f"the most that honest training does if no client trains on more than {assumed} images"
    )
    falling = ", less in later rounds as the learning rate falls" if terms.change_falls else ""
    yield (
        f"    weights: refused if one lies further from the start than {terms.max_change:.3g} per "
        f"previous round{falling} ({why}); statistics of batch normalisation: up to 1e+06"
    )
    if terms.models > 1:
        yield "    weights are not compared with earlier ones, since every client has a model"
        return
    if (ratio := offer.floor.max_loss_ratio) is not None:
        yield f"    weights: refused if their held-out loss is {ratio:g} times the least accepted"
    yield (
        "    weights: refused, too, if one lies further than that per round from those that the "
        "node accepted before; the node keeps the last ones of each arm and seed, 2 bytes a "
        "weight, and records a refusal in its ledger"
    )


def _update(arm: ArmConfig, training: TrainingConfig) -> str:
    stays = arm.embedding in ("frozen", "private")
    weights = "all weights except the patch embedding's" if stays else "all weights"
    return weights if training.codec == "fp32" else f"the change of {weights} ({training.codec})"


def _evaluation(terms: Terms, offer: Offer) -> str:
    if not _is_evaluated(offer):
        return "never evaluated on the held-out images, because of your floor"
    models = f"{terms.models} models each" if terms.models > 1 else "one model each"
    return (
        f"evaluated at the start and after {terms.evaluations - 1} round(s), {models}; what leaves "
        f"the node each time: the counts over all {offer.num_heldout} held-out images together, "
        f"{terms.num_classes}x{terms.num_classes}, their mean loss and the time it took"
    )


def _is_evaluated(offer: Offer) -> bool:
    floor = offer.floor
    return floor.evaluate != "never" and offer.num_heldout >= floor.min_heldout


def _narrow(terms: Terms, offer: Offer) -> Iterator[str]:
    """README's rule of thumb, applied to this config."""
    height, width = offer.config.data.image_size
    side, wide = terms.model.patch_size, terms.model.embed_dim
    if side is None or wide is None:
        return
    num_views = min(terms.training.batch_size, terms.training.images_a_pass(offer.num_train))
    num_tokens = num_views * (height // side) * (width // side)
    if num_tokens <= wide:
        yield (
            f"    WARNING: a step has {num_tokens} tokens and the model is {wide} wide; updates of "
            "models with more width than tokens per step reveal images"
        )
