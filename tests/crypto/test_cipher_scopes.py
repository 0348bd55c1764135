"""Key scope and block scope of every cipher: who shares a draw with whom, and who does not."""

import numpy as np
import pytest
from cipher_cases import KEY, NAMES, geometries, laws, make_image, products, subkeys, tiled
from hypothesis import given
from hypothesis import strategies as st

from fl_ppseg.crypto.ciphers.cipher import SCOPES
from fl_ppseg.crypto.ciphers.encryption import encrypt
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry, to_blocks


@laws
@given(st.data(), products, subkeys)
def test_a_common_draw_treats_each_block_as_if_it_were_alone(
    data: st.DataObject, name: str, subkey: SubKey
) -> None:
    """So it depends neither on the grid nor on the place in it, and fits any number of blocks."""
    geometry = data.draw(geometries(name))
    size, image = geometry.block_size, make_image(geometry)
    row = data.draw(st.integers(0, geometry.grid_h - 1)) * size
    column = data.draw(st.integers(0, geometry.grid_w - 1)) * size
    place = np.s_[:, row : row + size, column : column + size]
    whole = encrypt(image, subkey, name, block_size=size, scope="common")
    alone = encrypt(image[place], subkey, name, block_size=size, scope="common")
    np.testing.assert_array_equal(whole[place], alone)


@pytest.mark.parametrize("name", NAMES)
def test_equal_blocks_stay_equal_under_a_common_draw_alone(name: str) -> None:
    image = tiled(make_image(Geometry(3, 8, 1, 1)), 2, 3)
    num_different = {
        scope: len(
            np.unique(to_blocks(encrypt(image, KEY, name, block_size=8, scope=scope), 8), axis=0)
        )
        for scope in SCOPES
    }
    assert num_different == {"common": 1, "per-block": 6}


def test_no_two_uses_read_the_same_random_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are told apart by cipher, what it draws, scope, block length and step."""
    labels: list[bytes] = []
    stream = SubKey.stream

    def noted(subkey: SubKey, label: bytes, num_bytes: int, start: int = 0) -> bytearray:
        labels.append(label)
        return stream(subkey, label, num_bytes, start)

    monkeypatch.setattr(SubKey, "stream", noted)
    for cipher in CIPHERS.values():
        for scope in SCOPES:
            for size in (4, 6):
                for step in range(3):
                    cipher.draw(KEY, Geometry(3, size, 1, 2), scope, step)
    assert len(labels) >= 6 * 2 * 2 * 3
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_changes_the_draw(name: str) -> None:
    geometry = Geometry(3, 8, 1, 1)
    blocks = to_blocks(make_image(geometry), 8)
    cipher = get_cipher(name)
    secrets = [
        cipher.apply(blocks, cipher.draw(KEY, geometry, "common", step)).tobytes()
        for step in range(4)
    ]
    assert len(set(secrets)) == 4
