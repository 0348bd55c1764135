"""The network that the learned attacks share: its loss, its inputs, its training."""

import numpy as np
import torch
from audit_streets import BLOCK, SIZE, Encrypt, streets
from skimage.metrics import structural_similarity

from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.audit.attacks.reader import Budget, reconstruct, seen_of, to_bytes
from fl_ppseg.audit.attacks.similarity import ssim
from fl_ppseg.data.pixels import to_input

EVERY_BYTE = torch.arange(256, dtype=torch.uint8)


def test_the_loss_is_the_ssim_of_scikit_image() -> None:
    a, b = (streets(3, seed)[0] for seed in (0, 1))
    found = ssim(to_input(torch.from_numpy(a)), to_input(torch.from_numpy(b)))
    pairs = zip(a, b, strict=True)
    wanted = np.mean(
        [structural_similarity(x, y, channel_axis=0, data_range=255) for x, y in pairs]
    )
    assert abs(float(found) - wanted) < 1e-4


def test_bytes_come_back_from_the_input_of_a_model() -> None:
    assert np.array_equal(to_bytes(to_input(EVERY_BYTE)), EVERY_BYTE.numpy())
    assert to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_what_is_read_of_an_image_without_its_key_is_read_of_its_ciphertext() -> None:
    images, _ = streets(2, 0)
    encrypted = Encrypt("shuffle-spatial+negative-positive", "per-block", 1)(images)
    seen = [seen_of(x, "pixel-magnitudes", BLOCK, raw=False) for x in (images, encrypted)]
    assert torch.equal(*seen)
    raw = seen_of(encrypted, "pixel-magnitudes", BLOCK, raw=True)
    assert torch.equal(raw[:, :-3], seen[0])
    assert torch.equal(raw[:, -3:], to_input(torch.from_numpy(encrypted)))


def test_any_block_size_and_grid_has_a_reader() -> None:
    for block, grid in ((2, (3, 5)), (16, (1, 2))):
        height, width = (side * block for side in grid)
        guess = Reader(7, 2, block, grid)(torch.zeros(2, 7, height, width))
        assert guess.shape == (2, 3, height, width)


def test_guides_reach_the_pixels_in_place() -> None:
    """With all else cut off, one pixel of a guide changes the guess around that pixel alone."""
    torch.manual_seed(0)
    reader = Reader(4, 1, 4, (4, 4)).eval()
    for layer in (reader.embed, reader.direct):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.ones_(reader.paint[-1].weight)
    blank = torch.zeros(1, 4, 16, 16)
    marked = blank.clone()
    marked[0, 3, 8, 8] = 1
    change = (reader(marked) - reader(blank)).abs().sum(dim=(0, 1)).nonzero()
    assert change.min() == 6 and change.max() == 10


def test_the_same_seed_gives_the_same_bytes_and_leaves_global_generators_alone() -> None:
    public, _ = streets(8, 0)
    steps: list[tuple[int, int]] = []

    def learn(seed: int) -> np.ndarray:
        budget = Budget(3, seed, lambda done, total: steps.append((done, total)))
        return reconstruct(
            public,
            public[:2],
            lambda x: seen_of(x, "values", BLOCK, raw=False),
            BLOCK,
            budget=budget,
        )

    before = torch.random.get_rng_state()
    first, again, other = learn(0), learn(0), learn(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.shape == (2, 3, *SIZE) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert steps == [(1, 3), (2, 3), (3, 3)] * 3
