"""Leak tables made by hand: scores that an audit could find, small pictures."""

import numpy as np

from fl_ppseg.leaks.scores import BEST_PSNR, Scores
from fl_ppseg.leaks.table import ArmLeaks, DirectSegmentation, Finding, LabelFinding, LeakTable

SIZE, BLOCK = (16, 32), 8
BLIND = Scores(0.166, 12.1, 0.31, 5.2)
ANSWER = Scores(0.231, 13.4, 0.52, 37.6)
EXACT = Scores(1.0, BEST_PSNR, 1.0, 48.7)


def scores(ssim, correlation=0.9, miou=21.3):
    return Scores(ssim, 10 + 20 * ssim, correlation, miou)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (3, *SIZE), dtype=np.uint8)


def found(attack, adversary, given, key=None, note="on 8 images", seconds=1.5):
    shown = None if given is None else picture(len(attack))
    excess = None if given is None else given.ssim - ANSWER.ssim
    return Finding(
        *(attack, adversary, given, note, seconds),
        excess=excess,
        key_recovered=key,
        picture=shown,
    )


WEIGHTS = DirectSegmentation(39.8, 33.3, "weights of round 30, seed 0; 8 ciphertexts")


def arm(
    name, *findings, ratio=0.9, survivors=0.334, ciphertext=0.05, note="an arm", direct=WEIGHTS
):
    """An arm before the thumbnail, the survivor network and what is given."""
    common = (
        found("thumbnail", "ciphertext-thief", scores(0.251, 0.83, 14.4)),
        found("survivor-network", "ciphertext-thief", scores(survivors)),
    )
    return ArmLeaks(
        arm=name,
        note=note,
        protection="key mode: per-image; cipher: shuffle",
        ciphertext=Scores(ciphertext, 8.8, 0.02, 3.1),
        survivors=scores(survivors),
        findings=(*common, *findings),
        ratio_to_plain=ratio,
        direct=direct,
        encrypted=picture(99),
    )


def plain(ratio=1.0):
    exact = found("nothing to break", "ciphertext-thief", EXACT)
    gradient = found("closed-form-gradient", "coordinator", scores(0.991, 1.0))
    shown = found("imprint", "active-coordinator", scores(0.995, 1.0))
    findings = (exact, gradient, shown)
    direct = DirectSegmentation(48.7, 41.3, "weights of round 30, seed 0; 8 images")
    return ArmLeaks(
        *("plain", "no encryption", "", EXACT, None, findings, ratio, (), direct, picture(0))
    )


def table(*arms, targets=True, plain_miou=48.7):
    return LeakTable(
        source="procedural scenes",
        num_targets=8,
        image_size=SIZE,
        block_size=BLOCK,
        nothing=BLIND,
        answer=ANSWER,
        plain_miou=plain_miou,
        seconds=612.4,
        arms=arms,
        targets=(picture(0),) if targets else (),
    )


def private():
    """A key a client: every adversary but a curious coordinator gets far."""
    return arm(
        "per-client-private",
        found("position-correlation", "ciphertext-thief", scores(0.871, 0.99), key=0.834),
        found("known-plaintext", "known-plaintext", EXACT, key=1.0),
        found("embedding-matching", "node-thief", EXACT, key=1.0),
        found("label-map", "node-thief", scores(0.402)),
        found("gradient-matching", "coordinator", scores(0.153, 0.3)),
        found("imprint", "active-coordinator", scores(0.962, 0.99)),
        ratio=1.002,
        direct=DirectSegmentation(None, None, "the embedding is private"),
    )


def invariant():
    """A key a block: a thumbnail, and of a coordinator of either kind no picture."""
    return arm(
        "per-image-invariant",
        found("inverse-network", "ciphertext-thief", scores(0.329)),
        found("closed-form-gradient", "coordinator", None, key=0.0),
        found("imprint", "active-coordinator", None),
        ratio=0.871,
    )


def usual(**options):
    return table(plain(), private(), invariant(), **options)


def labels(
    right=0.732, *, maps="held-out", model="the model as agreed", note="refused: 13 are enough"
):
    """What an active coordinator read of label maps; None: nothing was answered."""
    attack = "evaluation-oracle" if maps == "held-out" else "label-update"
    num = 0 if right is None else 13
    return LabelFinding(
        attack, maps, "active-coordinator", model, right, 0.122, 0.458, 2, num, note, 9.5
    )
