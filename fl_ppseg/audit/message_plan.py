"""The coordinator's part of the plan: the attacks on the messages of one client, or on the sum of
several clients' updates.

All use the public embedding: an embedding adapted to a key maps ciphertexts to the tokens to which
the public one maps the plain images.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from fl_ppseg.audit.attacks.chains import (
    Show,
    decrypted_update,
    of_shown,
    of_single_images,
    searched,
    small_copies,
    spanned_gradient,
)
from fl_ppseg.audit.attacks.closed_form_gradient import closed_form_gradient
from fl_ppseg.audit.attacks.imprint import imprint
from fl_ppseg.audit.attacks.mlp_gradient import mlp_gradient
from fl_ppseg.audit.attacks.token_span import token_span
from fl_ppseg.audit.jobs import (
    IMPRINT_SECONDS,
    MATCHING_SECONDS,
    SEARCH_SECONDS,
    Attack,
    Attempt,
    Job,
)
from fl_ppseg.audit.material import Holdings, Scenes
from fl_ppseg.audit.rounds import Overheard
from fl_ppseg.leaks.scores import Images
from fl_ppseg.leaks.table import Adversary
from fl_ppseg.setr.names import EMBEDDING_TENSORS

NUM_LOOKED_AT, NUM_VALUES = 100, 2**24
"""Most public images that an attack on messages learns from; fewer of large ones, so that their
tokens fit into memory."""


class Shown(NamedTuple):
    """An attack that reveals the input of a client's model."""

    attack: str
    show: Show
    attempt: Callable[[str, str], Attempt]
    """Makes an attempt from an attack's name and a note."""
    seconds: float


def looked_at(public: Images) -> int:
    """How many of (k, 3, H, W) public images an attack on messages learns from."""
    return max(8, min(NUM_LOOKED_AT, NUM_VALUES // int(public[0].size)))


def shown(arm: Holdings, heard: Overheard) -> Shown | None:
    """The attack that reveals the input of the model; None if there is none."""
    if heard.kind == "imprinted":
        show: Show = partial(imprint, heard.exchanges, heard.own)
        return Shown("imprint", show, partial(_attempt, arm, heard), IMPRINT_SECONDS)
    (exchange,) = heard.exchanges
    if EMBEDDING_TENSORS[0] not in exchange.returned:
        return None
    show = partial(closed_form_gradient, exchange)
    return Shown("closed-form", show, partial(_attempt, arm, heard), 2.0)


def of_messages(scenes: Scenes, arm: Holdings, heard: Overheard) -> Iterator[Job]:
    """The attacks on messages, but for the networks that read canonical forms."""
    found = shown(arm, heard)
    if found is not None:
        how = {
            "imprint": "crafted weights",
            "closed-form": "from the gradients of the embeddings",
        }
        yield Job.of(found.attempt(found.attack, how[found.attack]), found.show, found.seconds)
        if arm.is_encrypted:
            yield from _of_ciphertexts(scenes, arm, found)
    if heard.kind != "imprinted":
        yield from _of_embeddings(scenes, arm, heard)


def _of_ciphertexts(scenes: Scenes, arm: Holdings, found: Shown) -> Iterator[Job]:
    """Attack ciphertexts that messages reveal like stolen ones."""
    if found.attack == "imprint" and arm.shows_tokens_of == "images":
        return
    own, size, name = scenes.public, arm.block_size, found.attack
    run: Attack = partial(of_shown, found.show, partial(small_copies, own, arm.form, size))
    attempt = found.attempt(f"{name}+thumbnail", "then the thumbnail of the ciphertexts")
    yield Job.of(attempt, run, found.seconds)
    if arm.protection.block_scope == "common":
        positions = partial(of_single_images, own, block_size=size, algorithm=arm.algorithm)
        run = partial(of_shown, found.show, positions)
        note = "then position correlation on the ciphertexts"
        yield Job.of(found.attempt(f"{name}+positions", note), run, found.seconds + SEARCH_SECONDS)


def _of_embeddings(scenes: Scenes, arm: Holdings, heard: Overheard) -> Iterator[Job]:
    """Attacks on an adapted embedding, and on gradients where no embedding is sent."""
    (exchange,) = heard.exchanges
    if EMBEDDING_TENSORS[0] in exchange.returned:
        if arm.protection.embedding == "adapted":
            public, size = arm.public_embedding, arm.block_size
            run: Attack = partial(decrypted_update, exchange, public, size, arm.algorithm)
            note = "decrypted with the key that the embedding reveals"
            yield Job.of(_attempt(arm, heard, "closed-form+key", note), run)
        return
    number = looked_at(scenes.public)
    images, labels = scenes.public[:number], scenes.public_labels[:number]
    told = {
        "token-span": (partial(token_span, exchange, images), "from the span of its tokens"),
        "mlp-gradient": (
            partial(mlp_gradient, exchange, images, labels),
            "from the gradient of the first MLP",
        ),
        "token-span+mlp-gradient": (
            partial(spanned_gradient, exchange, images, labels),
            "from the span of its tokens, then from the gradient of the first MLP",
        ),
    }
    for name, (run, note) in told.items():
        yield Job.of(_attempt(arm, heard, name, note), run, SEARCH_SECONDS)
    if heard.kind == "single" and not exchange.summed:  # of many images a search finds none
        attempt = _attempt(arm, heard, "gradient-matching", "gradients matched by a search")
        yield Job.of(attempt, partial(searched, exchange), MATCHING_SECONDS)


def _attempt(arm: Holdings, heard: Overheard, attack: str, note: str) -> Attempt:
    adversary: Adversary = "active-coordinator" if heard.kind == "imprinted" else "coordinator"
    told, num = f"{heard.note}; {note}", len(heard.exchanges)
    spent = "one round" if num == 1 else f"{num} rounds"
    return Attempt(
        attack, adversary, (arm.arm,), heard.truth, told, is_in_order=False, budget=spent
    )
