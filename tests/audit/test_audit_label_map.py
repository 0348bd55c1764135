"""Label maps: outlines and mean colours, and what a network makes of them with ciphertexts."""

import numpy as np
import torch
from audit_streets import BLOCK, SIZE, Encrypt, streets

from fl_ppseg.audit.attacks.label_map import at_size, labelled_network, one_hot, painted
from fl_ppseg.audit.attacks.reader import Budget
from fl_ppseg.audit.attacks.survivor_network import nothing, survivor_network
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
    assert at_size(labels, (2, 2)).tolist() == [[[5, 7], [13, 15]]]
    assert np.array_equal(at_size(labels, (8, 8)), labels.repeat(2, axis=1).repeat(2, axis=2))
    assert np.array_equal(at_size(labels, (4, 4)), labels)


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
