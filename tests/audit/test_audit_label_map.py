"""Label maps: outlines and mean colours, and what a network makes of them with ciphertexts."""

import numpy as np
import pytest
import torch
from audit_streets import BLOCK, SIZE, Encrypt, streets

from fl_ppseg.audit.attacks.label_map import (
    answer_network,
    labelled_network,
    labels_in_order,
    one_hot,
    painted,
)
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.pixel_moves import pixel_order
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.nearest import nearest
from fl_ppseg.leaks.scores import score_images

BUDGET = Budget(10)


def test_each_class_is_painted_in_its_mean_colour() -> None:
    labels = np.array([[[0, 0], [2, 255]]], np.uint8)
    image = np.array([[[10, 20], [30, 40]], [[0, 0], [90, 0]], [[5, 6], [7, 8]]], np.uint8)[None]
    wanted = np.full((1, 2, 2), 2, np.uint8)
    assert painted(image, labels, wanted)[0, :, 0, 0].tolist() == [30, 90, 7]
    assert painted(image, labels, 0 * wanted)[0, :, 0, 0].tolist() == [15, 0, 6]
    unseen = painted(image, labels, 0 * wanted + 1)
    assert unseen[0, :, 0, 0].tolist() == [25, 22, 6], "the mean of all"


def test_label_maps_of_another_size_are_read_at_the_image_s() -> None:
    labels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    assert nearest(labels, (2, 2)).tolist() == [[[5, 7], [13, 15]]]
    assert np.array_equal(nearest(labels, (8, 8)), labels.repeat(2, axis=1).repeat(2, axis=2))
    assert np.array_equal(nearest(labels, (4, 4)), labels)


def test_ignored_pixels_are_of_no_class() -> None:
    hot = one_hot(np.array([[[0, 2, 255]]], np.uint8), 3)
    assert torch.equal(hot[0, :, 0].T, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0]]))


def test_outlines_alone_beat_nothing_and_with_what_survives_beat_both() -> None:
    (public, own_labels), (targets, labels) = streets(60, 0), streets(20, 1)
    ciphertexts = Encrypt("shuffle", "per-block", 0)(targets)
    guesses = {
        "nothing": nothing(public, block_size=BLOCK, budget=BUDGET).repeat(len(targets), axis=0),
        "painted": painted(public, own_labels, labels),
        "survivors": survivor_network(
            public, ciphertexts, "values", block_size=BLOCK, budget=BUDGET
        ),
        "both": labelled_network(
            public,
            own_labels,
            ciphertexts,
            labels,
            "values",
            num_classes=4,
            block_size=BLOCK,
            budget=BUDGET,
        ),
    }
    found = {name: score_images(targets, guess, BLOCK) for name, guess in guesses.items()}
    assert found["painted"].ssim > found["nothing"].ssim + 0.1
    assert found["both"].ssim > found["survivors"].ssim + 0.05
    assert found["both"].psnr > found["painted"].psnr + 2, "a label map does not tell the light"


def test_the_answer_alone_tells_more_than_nothing_and_only_what_the_label_map_tells() -> None:
    (public, own_labels), (targets, labels) = streets(60, 0), streets(20, 1)
    blind = nothing(public, block_size=BLOCK, budget=BUDGET).repeat(len(targets), axis=0)
    shown, ignored = (
        answer_network(*(public, given, of_targets), num_classes=4, block_size=BLOCK, budget=BUDGET)
        for given, of_targets in (
            (own_labels, labels),
            (np.full_like(own_labels, 255), np.full_like(labels, 255)),
        )
    )
    found = [score_images(targets, guess, BLOCK).ssim for guess in (blind, ignored, shown)]
    assert found[2] > found[0] + 0.1
    assert found[1] < found[0] + 0.02
    assert len({guess.tobytes() for guess in ignored}) == 1, "no image of the targets is read"


@pytest.mark.parametrize(
    ("cipher", "form"),
    [
        ("shuffle-spatial", "pixels"),
        ("shuffle-spatial+negative-positive", "pixel-magnitudes"),
    ],
)
def test_labels_that_moved_with_their_pixels_are_known_in_one_order_alone(
    cipher: str, form: str
) -> None:
    images, labels = streets(3, 1)
    rng = np.random.default_rng(2)
    labels = np.where(rng.random(labels.shape) < 0.2, 3, labels).astype(np.uint8)
    images = images // 32 * 32  # equal pixels with other labels
    expected = labels_in_order(images, labels, form, BLOCK)
    for _ in range(2):
        key = SubKey.generate()
        hidden = np.stack(
            [encrypt(i, key, cipher, block_size=BLOCK, scope="per-block") for i in images]
        )
        order = pixel_order(cipher, key, SIZE, BLOCK, "per-block")
        found = labels_in_order(hidden, order.permuted(labels), form, BLOCK)
        np.testing.assert_array_equal(found, expected)
    assert (labels_in_order(images, labels, "pixels", BLOCK) != labels).any()


def test_labels_in_place_tell_more_than_labels_of_pixels() -> None:
    (public, own_labels), (targets, labels) = streets(60, 0), streets(20, 1)
    key = SubKey.generate()
    hidden = np.stack(
        [encrypt(i, key, "shuffle-spatial", block_size=BLOCK, scope="per-block") for i in targets]
    )
    order = pixel_order("shuffle-spatial", key, SIZE, BLOCK, "per-block")
    scores = [
        score_images(
            targets,
            labelled_network(
                *(public, own_labels, hidden, shown, "pixels"),
                num_classes=4, block_size=BLOCK, are_moved=are_moved, budget=BUDGET,
            ),
            BLOCK,
        ).ssim
        for shown, are_moved in ((labels, False), (order.permuted(labels), True))
    ]  # fmt: skip
    assert scores[0] > scores[1] + 0.03


def test_a_cipher_that_leaves_no_form_leaves_the_label_map() -> None:
    (public, own_labels), (targets, labels) = streets(60, 0), streets(20, 1)
    ciphertexts = Encrypt("ffx", "per-block", 0)(targets)
    guesses = [
        labelled_network(
            public,
            own_labels,
            ciphertexts,
            shown,
            None,
            num_classes=4,
            block_size=BLOCK,
            encrypt=encrypt,
            budget=BUDGET,
        )
        for shown, encrypt in (
            (labels, Encrypt("ffx", "per-block", 10**6)),
            (np.full((20, *SIZE), 255, np.uint8), None),
        )
    ]
    told, untold = (score_images(targets, guess, BLOCK).ssim for guess in guesses)
    assert told > untold + 0.1
