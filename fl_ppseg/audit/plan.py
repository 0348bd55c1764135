"""Which attack is run by whom on what: the table of attacks, a few lines each.

What an attack is called with is all that it is given. Arms whose targets look alike to an attack
(every cipher that leaves one canonical form, say) share its run.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fl_ppseg.audit.attacks.chains import (
    decrypted_update,
    of_many_images,
    of_sent,
    of_single_images,
    searched,
    small,
)
from fl_ppseg.audit.attacks.chosen_plaintext import match_chosen
from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.embedding_matching import match_embeddings
from fl_ppseg.audit.attacks.inverse_network import inverse_network
from fl_ppseg.audit.attacks.known_plaintext import match_known
from fl_ppseg.audit.attacks.label_map import labelled_network, painted
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.audit.attacks.undoing import KeyGuess
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.leaks import FLOOR, THUMBNAIL, Adversary
from fl_ppseg.audit.material import Holdings, Scenes
from fl_ppseg.audit.rounds import Overheard
from fl_ppseg.audit.scores import Images
from fl_ppseg.setr.names import EMBEDDING_TENSORS

Attack = Callable[[], Images | KeyGuess | None]
"""An attack with what its adversary holds, bound; picklable. None: it finds nothing to begin at."""

NETWORK_SECONDS, SEARCH_SECONDS, MATCHING_SECONDS = 75.0, 20.0, 90.0
"""Roughly what the long ones take; the longest begin first."""
NUM_LOOKED_AT = 100
"""Public images that an attack on a message learns from."""


@dataclass(frozen=True, eq=False)
class Job:
    """One attack to run."""

    attack: str
    adversary: Adversary
    arms: tuple[str, ...]
    """The arms whose targets it restores."""
    run: Attack = field(repr=False)
    truth: Images = field(repr=False)
    """What is to be restored, one image a guess, or several of which a guess may be any."""
    note: str
    """What it is run on."""
    seconds: float = 1.0


def jobs(
    scenes: Scenes,
    arms: Sequence[Holdings],
    overheard: Mapping[str, Sequence[Overheard]],
    num_classes: int,
    budget: Budget,
) -> Iterator[Job]:
    """All attacks of an audit.

    Args:
        scenes: Its images.
        arms: What each arm's owner made of them.
        overheard: By arm, rounds that its coordinator kept.
        num_classes: Classes of the label maps.
        budget: Of the networks.
    """
    encrypted = [arm for arm in arms if arm.is_encrypted]
    yield from _of_anybody(scenes, [arm for arm in arms if not arm.is_encrypted])
    yield _painted(scenes, arms)
    for alike in _by_form(encrypted):
        yield from _of_survivors(scenes, alike, num_classes, budget)
    for arm in encrypted:
        yield from _of_ciphertexts(scenes, arm, budget)
        yield from _of_pairs(scenes, arm)
        yield from _of_embeddings(scenes, arm)
    for arm in arms:
        for exchange in overheard.get(arm.arm, ()):
            yield from _of_messages(scenes, arm, exchange)


def _of_anybody(scenes: Scenes, plain: Sequence[Holdings]) -> Iterator[Job]:
    """Plain shards want no attack."""
    if plain:
        names = tuple(arm.arm for arm in plain)
        note = "the shard is not encrypted"
        run = partial(_as_it_is, scenes.targets)
        yield Job("no-attack", "ciphertext-thief", names, run, scenes.targets, note)


def _painted(scenes: Scenes, arms: Sequence[Holdings]) -> Job:
    names = tuple(arm.arm for arm in arms)
    run = partial(painted, scenes.public, scenes.public_labels, scenes.labels)
    note = "label maps, painted in the mean colour of each class"
    return Job("label-map", "node-thief", names, run, scenes.targets, note)


def _of_survivors(
    scenes: Scenes, alike: Sequence[Holdings], num_classes: int, budget: Budget
) -> Iterator[Job]:
    """What a canonical form tells, alone and beside label maps: the same under every key."""
    names = tuple(arm.arm for arm in alike)
    given, form, size = alike[0].ciphertexts, alike[0].form, alike[0].block_size
    public = scenes.public
    note = f"{len(given)} images, canonical form {form}"
    run: Attack = partial(thumbnail, public, given, form, block_size=size)
    yield Job(THUMBNAIL, "ciphertext-thief", names, run, scenes.targets, note)
    if form is None:
        return
    note += f"; trained on {len(public)} public images, {budget.steps} steps"
    run = partial(survivor_network, public, given, form, block_size=size, budget=budget)
    yield Job(FLOOR, "ciphertext-thief", names, run, scenes.targets, note, NETWORK_SECONDS)
    run = partial(
        labelled_network,
        *(public, scenes.public_labels, given, scenes.labels, form),
        num_classes=num_classes,
        block_size=size,
        budget=budget,
    )
    note += ", with label maps"
    yield Job("labelled-network", "node-thief", names, run, scenes.targets, note, NETWORK_SECONDS)


def _of_ciphertexts(scenes: Scenes, arm: Holdings, budget: Budget) -> Iterator[Job]:
    """What the real ciphertexts tell, without any key of the owner's."""
    size, own = arm.block_size, scenes.public
    run: Attack = partial(
        inverse_network,
        *(own, arm.ciphertexts, arm.own_encryption, arm.form),
        block_size=size,
        budget=budget,
    )
    note = f"{len(scenes.targets)} images; trained on {len(own)} under keys of its own"
    yield _of(arm, "inverse-network", run, scenes.targets, note, NETWORK_SECONDS)
    if arm.protection.block_scope != "common":
        return
    algorithm = arm.algorithm
    num_blocks = own.shape[2] * own.shape[3] // size**2
    if arm.reuses_key:
        run = partial(
            of_many_images,
            *(arm.shard, len(scenes.targets), own),
            block_size=size,
            algorithm=algorithm,
        )
        note = f"{len(arm.shard) * num_blocks} blocks of {len(arm.shard)} images under one key"
    else:
        run = partial(of_single_images, own, arm.ciphertexts, block_size=size, algorithm=algorithm)
        note = f"{num_blocks} blocks of an image under one key, {len(scenes.targets)} images"
    yield _of(arm, "position-correlation", run, scenes.targets, note, SEARCH_SECONDS)


def _of_pairs(scenes: Scenes, arm: Holdings) -> Iterator[Job]:
    """What one image tells of another under the same key, if any is."""
    size, algorithm = arm.block_size, arm.algorithm
    per_block = arm.protection.block_scope == "per-block"
    adversary: Adversary = "known-plaintext"
    run: Attack = partial(
        match_known,
        *(arm.ciphertexts, *arm.pairs),
        block_size=size,
        algorithm=algorithm,
        per_block=per_block,
    )
    note = f"{len(arm.pairs[0])} images known both ways"
    yield Job("known-plaintext", adversary, (arm.arm,), run, scenes.targets, note)
    if arm.reuses_key:
        run = partial(
            match_chosen,
            *(arm.ciphertexts, arm.encrypt),
            block_size=size,
            algorithm=algorithm,
            per_block=per_block,
        )
        note = "images of the attacker's making, encrypted by the owner"
        yield Job("chosen-plaintext", adversary, (arm.arm,), run, scenes.targets, note)


def _of_embeddings(scenes: Scenes, arm: Holdings) -> Iterator[Job]:
    """What the embedding that a node keeps, or uploads, tells of the key."""
    if arm.embedding is None:
        return
    run = partial(
        match_embeddings,
        *(arm.ciphertexts, arm.embedding, arm.public_embedding),
        block_size=arm.block_size,
        algorithm=arm.algorithm,
    )
    note = "the adapted embedding beside the public one"
    yield Job("embedding-matching", "node-thief", (arm.arm,), run, scenes.targets, note)


def _of_messages(scenes: Scenes, arm: Holdings, heard: Overheard) -> Iterator[Job]:
    """What the messages of one round tell the coordinator, always in the public basis."""
    exchange = heard.exchange

    def job(attack: str, run: Attack, note: str, seconds: float = 5.0) -> Job:
        told = f"{heard.note}; {note}"
        return Job(attack, "coordinator", (arm.arm,), run, heard.truth, told, seconds)

    if EMBEDDING_TENSORS[0] in exchange.returned:
        run: Attack = partial(closed_form_gradient, exchange)
        yield job("closed-form", run, "from the gradients of the embeddings")
        if arm.is_encrypted:
            yield from _of_sent_ciphertexts(scenes, arm, exchange, job)
        if arm.protection.embedding == "adapted":
            public, size = arm.public_embedding, arm.block_size
            run = partial(decrypted_update, exchange, public, size, arm.algorithm)
            yield job("closed-form+key", run, "undone with the key that the embedding gives away")
    else:
        own = scenes.public[:NUM_LOOKED_AT], scenes.public_labels[:NUM_LOOKED_AT]
        run = partial(mlp_gradient, exchange, *own)
        yield job("mlp-gradient", run, "from the gradient of the first MLP", SEARCH_SECONDS)
        if heard.is_single:
            run = partial(searched, exchange)
            yield job("gradient-matching", run, "searched for by its gradients", MATCHING_SECONDS)


def _of_sent_ciphertexts(
    scenes: Scenes, arm: Holdings, exchange: Exchange, job: Callable[[str, Attack, str], Job]
) -> Iterator[Job]:
    """The ciphertext that a message shows is attacked like a stolen one."""
    own, size = scenes.public, arm.block_size
    run: Attack = partial(of_sent, exchange, partial(small, own, arm.form, size))
    yield job("closed-form+thumbnail", run, "then the thumbnail of what it shows")
    if arm.protection.block_scope == "common":
        positions = partial(of_single_images, own, block_size=size, algorithm=arm.algorithm)
        run = partial(of_sent, exchange, positions)
        yield job("closed-form+positions", run, "then position correlation on what it shows")


def _as_it_is(images: Images) -> Images:
    return images


def _of(arm: Holdings, attack: str, run: Attack, truth: Images, note: str, seconds: float) -> Job:
    return Job(attack, "ciphertext-thief", (arm.arm,), run, truth, note, seconds)


def _by_form(arms: Sequence[Holdings]) -> Iterator[list[Holdings]]:
    """Arms whose ciphertexts have the same canonical form; those without one are each alone."""
    alike: dict[str, list[Holdings]] = defaultdict(list)
    for arm in arms:
        alike[arm.form or f"none of {arm.arm}"].append(arm)
    yield from alike.values()
