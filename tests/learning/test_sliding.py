"""Whole frames by a model for smaller images: against window by window, and under encryption."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_setr import IMAGE_SIZE, images, tiny
from torch.nn import functional

from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.learning.evaluation import evaluate
from fl_ppseg.learning.sliding import SlidingWindows, offsets
from fl_ppseg.setr.model import SETR

FRAME = (32, 64)
DECODERS = {
    "naive": {"decoder": "naive"},
    "pup": {"decoder": "pup"},
    "mla": {"decoder": "mla"},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@settings(max_examples=200)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 30))
def test_windows_cover_a_side_begin_at_blocks_and_end_at_its_end(
    block: int, blocks: int, more: int
) -> None:
    window, side = block * blocks, block * (blocks + more)
    found = offsets(side, window, block)
    assert found == sorted(set(found)) and found[0] == 0 and found[-1] == side - window
    assert all(offset % block == 0 for offset in found)
    steps = np.diff(found)
    assert all(step <= max(block, 2 * window // 3) for step in steps)  # overlap, or touch
    stride = max(block, 2 * window // 3 // block * block)
    assert len(found) == max(0, side - window + stride - 1) // stride + 1  # as mmsegmentation


@pytest.mark.parametrize(("side", "window"), [(8, 16), (20, 16)])
def test_frames_that_windows_do_not_fit_are_refused(side: int, window: int) -> None:
    with pytest.raises(ValueError, match=f"side of {side} pixels, window {window}, block 8"):
        offsets(side, window, 8)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_frame_of_the_models_own_size_is_its_own_answer_to_the_bit(decoder: str) -> None:
    model = tiny(**DECODERS[decoder])
    with torch.inference_mode():
        found = SlidingWindows(model)(images()).main
        assert torch.equal(found, model(images()).main)


@pytest.mark.parametrize("decoder", DECODERS)
def test_overlapping_windows_are_averaged(decoder: str) -> None:
    """Block by block, in another order, with nothing of the module's own."""
    model, frame = tiny(**DECODERS[decoder]), images(FRAME, 1)
    with torch.inference_mode():
        found = SlidingWindows(model)(frame).main
        windows = {
            (top, left): model(frame[..., top : top + 16, left : left + 40]).main
            for top in (0, 8, 16)  # stride: 10 pixels rounded down to a block
            for left in (0, 24)
        }
        per_block = next(iter(windows.values())).shape[-2] // 2
        assert found.shape[-2:] == (4 * per_block, 8 * per_block)
        for row in range(4):
            for column in range(8):
                own = [
                    part[..., (row - top // 8) * per_block : (row - top // 8 + 1) * per_block,
                         (column - left // 8) * per_block : (column - left // 8 + 1) * per_block]
                    for (top, left), part in windows.items()
                    if 0 <= row - top // 8 < 2 and 0 <= column - left // 8 < 5
                ]  # fmt: skip
                place = found[..., row * per_block : (row + 1) * per_block,
                              column * per_block : (column + 1) * per_block]  # fmt: skip
                torch.testing.assert_close(place, torch.stack(own).mean(dim=0))


def counted(model: SETR, frame: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    return evaluate(SlidingWindows(model), [(frame, labels)], 19)[0]


@pytest.mark.parametrize("padding", [0, 8])
def test_an_encrypted_frame_is_answered_as_a_plain_one_by_an_invariant_embedding(
    padding: int,
) -> None:
    """Windows are cut from the ciphertext; padded pixels are not counted."""
    model = tiny(decoder="naive", invariant="values")
    generator = np.random.default_rng(5)
    frame = generator.integers(0, 256, (3, *FRAME), dtype=np.uint8)
    labels = generator.integers(0, 19, FRAME, dtype=np.uint8)
    labels[FRAME[0] - padding :] = 255
    plain = counted(model, frame, labels)
    key = SubKey.generate()
    ciphertext = encrypt(frame, key, "shuffle", block_size=8, scope="per-block")
    assert (ciphertext != frame).any()
    assert torch.equal(counted(model, ciphertext, labels), plain)
    assert int(plain.sum()) == (FRAME[0] - padding) * FRAME[1]


def test_a_wide_frame_is_scored_by_its_two_windows_and_their_mean_where_they_overlap() -> None:
    model = tiny(decoder="naive")
    generator = np.random.default_rng(6)
    frame = generator.integers(0, 256, (3, 16, 40 + 24), dtype=np.uint8)
    labels = generator.integers(0, 19, (16, 64), dtype=np.uint8)
    found = counted(model, frame, labels)
    with torch.inference_mode():
        parts = [
            model(
                (2 * torch.from_numpy(frame[None, :, :, left : left + 40]).float() - 255) / 255
            ).main
            for left in (0, 24)
        ]
    per_block = parts[0].shape[-1] // 5
    logits = torch.zeros(1, 19, parts[0].shape[-2], 8 * per_block)
    times = torch.zeros(8 * per_block)
    for left, part in zip((0, 3 * per_block), parts, strict=True):
        logits[..., left : left + part.shape[-1]] += part
        times[left : left + part.shape[-1]] += 1
    whole = functional.interpolate(logits / times, size=(16, 64), mode="bilinear")
    guess = whole.argmax(dim=1)[0].numpy()
    expected = np.zeros((19, 19), np.int64)
    np.add.at(expected, (labels.ravel(), guess.ravel()), 1)
    assert np.abs(found.numpy() - expected).sum() <= 2  # pixels on the edge between two classes
    assert IMAGE_SIZE == (16, 40)
