"""What networks read of survivors: the same of all ciphertexts of an image, and of no other."""

from itertools import permutations

import numpy as np
import pytest
import torch
from cipher_cases import Bytes, geometries, laws, make_image, scopes, subkeys
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.audit.attacks.surviving import surviving
from fl_ppseg.crypto.ciphers.cipher import Scope
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.invariance import surviving_form
from fl_ppseg.crypto.ciphers.registry import CIPHERS
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry
from fl_ppseg.data.pixels import to_input

SIZE = 4
NAMES = sorted({*CIPHERS, "shuffle-spatial+negative-positive"} - {"ffx"})


def seen(image: Bytes, form: str, size: int) -> torch.Tensor:
    return surviving(to_input(torch.from_numpy(np.ascontiguousarray(image))[None]), form, size)[0]


def turned(block: Bytes) -> list[Bytes]:
    """(3, S, S) -> all 96 that turning, orders of colours and inversion make of it."""
    made = []
    for turn in range(8):
        square = np.rot90(block if turn < 4 else block[:, :, ::-1], turn % 4, axes=(1, 2))
        for order in permutations(range(3)):
            made += [square[list(order)], 255 - square[list(order)]]
    return made


def orbit(block: Bytes) -> list[bytes]:
    """(3, M, M) -> the least of the 96 of each sub-block, sorted: an independent reading."""
    half = block.shape[1] // 2
    parts = [block[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    return sorted(min(each.tobytes() for each in turned(part)) for part in parts)


@pytest.mark.parametrize("name", NAMES)
@laws
@given(st.data(), scopes, subkeys)
def test_no_key_changes_what_is_read(
    name: str, data: st.DataObject, scope: Scope, subkey: SubKey
) -> None:
    form = surviving_form(name)
    assert form is not None
    geometry = data.draw(geometries(name))
    image, size = make_image(geometry, data.draw(st.integers(0, 99))), geometry.block_size
    secret = encrypt(image, subkey, name, block_size=size, scope=scope)
    assert torch.equal(seen(image, form, size), seen(secret, form, size))


@laws
@given(st.integers(0, 10**6), st.sampled_from([2, 4, 6]), st.integers(2, 256))
def test_sub_blocks_are_told_apart_where_no_key_makes_one_of_the_other(
    seed: int, size: int, num_levels: int
) -> None:
    """Few levels make many equal values; a change of one value makes another orbit, or the same."""
    rng = np.random.default_rng(seed)
    levels = rng.choice(256, num_levels, replace=False).astype(np.uint8)
    block = levels[rng.integers(num_levels, size=(3, size, size))]
    other = block.copy()
    place = tuple(rng.integers((3, size, size)))
    other[place] = levels[rng.integers(num_levels)]
    same = torch.equal(seen(block, "sub-blocks", size), seen(other, "sub-blocks", size))
    assert same == (orbit(block) == orbit(other))


def test_sub_blocks_shown_are_those_of_the_block() -> None:
    """In one of the 96 forms each, before the magnitudes that an embedding reads."""
    block = make_image(Geometry(3, SIZE, 1, 1), seed=3)
    planes = seen(block, "sub-blocks", SIZE)
    assert planes.shape == (9, SIZE, SIZE)
    shown = ((planes[:3] + 1) * 127.5).round().byte().numpy()
    assert orbit(shown) == orbit(block)


def test_magnitudes_stay_in_place() -> None:
    block = make_image(Geometry(3, SIZE, 1, 1), seed=4)
    planes = seen(block, "placed-magnitudes", SIZE)
    wanted = np.abs(2 * block.astype(int) - 255)
    assert np.array_equal(((planes[:3] + 1) * 127.5).round().int().numpy(), wanted)
