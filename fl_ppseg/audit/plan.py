"""The plan: which adversary runs which attack on what, a few lines per attack.

An attack is given its arguments and nothing else. Arms that give an attack the same input (e.g. all
ciphers with one canonical form) share its run.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from fl_ppseg.audit.attacks.chains import (
    Show,
    of_many_images,
    of_single_images,
    of_survivors,
)
from fl_ppseg.audit.attacks.chosen_plaintext import match_chosen
from fl_ppseg.audit.attacks.embedding_matching import match_embeddings
from fl_ppseg.audit.attacks.inverse_network import inverse_network
from fl_ppseg.audit.attacks.known_plaintext import match_known
from fl_ppseg.audit.attacks.label_map import labelled_network, painted
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.starts import steps_before
from fl_ppseg.audit.attacks.statistics import statistics
from fl_ppseg.audit.attacks.thumbnail import thumbnail
from fl_ppseg.audit.jobs import (
    NETWORK_SECONDS,
    SEARCH_SECONDS,
    STATISTICS_SECONDS,
    Attack,
    Attempt,
    Job,
)
from fl_ppseg.audit.material import Holdings, Scenes
from fl_ppseg.audit.message_plan import Shown, of_messages, shown
from fl_ppseg.audit.rounds import Overheard
from fl_ppseg.leaks.scores import Images
from fl_ppseg.leaks.table import LABEL_MAP, SURVIVORS, THUMBNAIL, Adversary


def planned(
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
        overheard: Per arm, the rounds that its coordinator kept.
        num_classes: Classes of the label maps.
        budget: Of the networks.
    """
    encrypted = [arm for arm in arms if arm.is_encrypted]
    yield from _of_anybody(scenes, [arm for arm in arms if not arm.is_encrypted])
    in_place = [arm for arm in arms if arm.protection.labels == "plain"]
    if in_place:
        yield _painted(scenes, in_place)
    for alike in _by_form(encrypted):
        told = [_told(arm, heard) for arm in alike for heard in overheard[arm.arm]]
        messages = [each for each in told if each is not None]
        yield from _of_survivors(scenes, alike, messages, num_classes, budget)
    for arm in encrypted:
        yield from _of_ciphertexts(scenes, arm, budget)
        yield from _of_pairs(scenes, arm)
        yield from _of_embeddings(scenes, arm)
    for arm in arms:
        for heard in overheard[arm.arm]:
            yield from of_messages(scenes, arm, heard)


def _of_anybody(scenes: Scenes, plain: Sequence[Holdings]) -> Iterator[Job]:
    """Plain shards need no attack."""
    if plain:
        names = tuple(arm.arm for arm in plain)
        note = "the shard is not encrypted"
        attempt = Attempt("no-attack", "ciphertext-thief", names, scenes.targets, note)
        yield Job.of(attempt, partial(_as_it_is, scenes.targets))


def _painted(scenes: Scenes, arms: Sequence[Holdings]) -> Job:
    names = tuple(arm.arm for arm in arms)
    run = partial(painted, scenes.public, scenes.public_labels, scenes.labels)
    note = "label maps, painted in the mean colour of each class"
    return Job.of(Attempt(LABEL_MAP, "node-thief", names, scenes.targets, note), run)


def _told(arm: Holdings, heard: Overheard) -> Shown | None:
    """The attack that reveals the canonical forms of a client's images, if there is one."""
    return shown(arm, heard) if arm.shows_tokens_of == "ciphertexts" else None


def _of_survivors(
    scenes: Scenes,
    alike: Sequence[Holdings],
    messages: Sequence[Shown],
    num_classes: int,
    budget: Budget,
) -> Iterator[Job]:
    """Attacks on a canonical form, alone and with label maps: the same under every key."""
    names = tuple(arm.arm for arm in alike)
    given, form, size = alike[0].ciphertexts, alike[0].survives, alike[0].block_size
    public = scenes.public
    note = f"{len(given)} images, canonical form {form}"
    attempt = Attempt(THUMBNAIL, "ciphertext-thief", names, scenes.targets, note)
    yield Job.of(attempt, partial(thumbnail, public, given, form, block_size=size))
    if form is None:
        return
    spent = _spent(public, budget, form, size)
    trained = f"trained on {spent}"
    told = f"{note}; {trained}"
    stolen = Attempt(SURVIVORS, "ciphertext-thief", names, scenes.targets, told, budget=spent)
    found: list[tuple[str, Attempt, Show]] = [(form, stolen, partial(_as_it_is, given))]
    for each in messages:  # what the embedding reads may be less than what survives
        read = alike[0].form or form
        told = f"canonical form {read}; {trained}"
        attempt = each.attempt(f"{each.attack}+network", told)
        found.append((read, replace(attempt, budget=spent), each.show))
    for read in dict.fromkeys(read for read, _, _ in found):
        used = _spent(public, budget, read, size)
        attempts = tuple(replace(each, budget=used) for own, each, _ in found if own == read)
        shows = [show for own, _, show in found if own == read]
        run = partial(of_survivors, public, shows, read, block_size=size, budget=budget)
        yield Job(attempts, run, NETWORK_SECONDS)
    for are_moved, how in ((False, "label maps"), (True, "labels of the encrypted pixels")):
        arms = [arm for arm in alike if (arm.protection.labels == "encrypted") == are_moved]
        if not arms:
            continue
        attack: Attack = partial(
            labelled_network,
            *(public, scenes.public_labels, arms[0].ciphertexts),
            *(arms[0].labels, form),
            num_classes=num_classes,
            block_size=size,
            are_moved=are_moved,
            budget=budget,
        )
        owners, text = tuple(arm.arm for arm in arms), f"{note}; {trained}, with {how}"
        thief = Attempt(
            "labelled-network", "node-thief", owners, scenes.targets, text, budget=spent
        )
        yield Job.of(thief, attack, NETWORK_SECONDS)


def _of_ciphertexts(scenes: Scenes, arm: Holdings, budget: Budget) -> Iterator[Job]:
    """Attacks on the real ciphertexts, without any key of the owner."""
    size, own = arm.block_size, scenes.public
    run: Attack = partial(
        inverse_network,
        *(own, arm.ciphertexts, arm.own_encryption, arm.survives),
        block_size=size,
        budget=budget,
    )
    spent = _spent(own, budget, arm.survives, size)
    note = f"{len(scenes.targets)} images; trained on {spent}, under keys of its own"
    attempt = Attempt(
        "inverse-network", "ciphertext-thief", (arm.arm,), scenes.targets, note, budget=spent
    )
    yield Job.of(attempt, run, NETWORK_SECONDS)
    run = partial(statistics, own, arm.ciphertexts, arm.own_encryption, block_size=size)
    note = f"{len(scenes.targets)} images; counts, parities and sums of their blocks"
    yield _of(arm, "statistics", run, scenes.targets, note, STATISTICS_SECONDS)
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
    """Attacks on further images under a key with known or chosen plaintexts."""
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
    note = f"{len(arm.pairs[0])} images known in plain and encrypted"
    yield Job.of(Attempt("known-plaintext", adversary, (arm.arm,), scenes.targets, note), run)
    if arm.reuses_key:
        run = partial(
            match_chosen,
            *(arm.ciphertexts, arm.encrypt),
            block_size=size,
            algorithm=algorithm,
            per_block=per_block,
        )
        note = "images of the adversary's making, encrypted by the owner"
        yield Job.of(Attempt("chosen-plaintext", adversary, (arm.arm,), scenes.targets, note), run)


def _of_embeddings(scenes: Scenes, arm: Holdings) -> Iterator[Job]:
    """Attacks on the embedding that a node keeps or uploads."""
    if arm.embedding is None:
        return
    run = partial(
        match_embeddings,
        *(arm.ciphertexts, arm.embedding, arm.public_embedding),
        block_size=arm.block_size,
        algorithm=arm.algorithm,
    )
    note = "the adapted embedding and the public one"
    attempt = Attempt("embedding-matching", "node-thief", (arm.arm,), scenes.targets, note)
    yield Job.of(attempt, run)


def _spent(public: Images, budget: Budget, reads: str | None, block_size: int) -> str:
    """Describe the budget of a network."""
    before = 0 if budget.from_scratch else steps_before(reads, block_size)
    after = f" after {before} on drawn scenes" if before else ""
    return f"{len(public)} public images, {budget.steps} steps{after}"


def _as_it_is(images: Images) -> Images:
    return images


def _of(arm: Holdings, attack: str, run: Attack, truth: Images, note: str, seconds: float) -> Job:
    return Job.of(Attempt(attack, "ciphertext-thief", (arm.arm,), truth, note), run, seconds)


def _by_form(arms: Sequence[Holdings]) -> Iterator[list[Holdings]]:
    """Arms whose ciphertexts have the same canonical form; those without one are each alone."""
    alike: dict[str, list[Holdings]] = defaultdict(list)
    for arm in arms:
        alike[arm.survives or f"none of {arm.arm}"].append(arm)
    yield from alike.values()
