"""The distribution of a block's ciphertext depends on its form alone, for every cipher and scope.

The form is what is documented to survive (`form` of a cipher, `fl_ppseg.crypto.ciphers.forms`).
Tiny blocks: all parameters are enumerated, and blocks of equal form have the same ciphertexts
equally often. Real ones: of blocks of equal form, made to differ in all else, thousands of
ciphertexts are drawn under fresh keys, and many statistics of them compared. A cipher that tells
more fails: the last tests hold three that do.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations, product
from typing import Any

import numpy as np
import pytest
from cipher_cases import NAMES
from half_inversion import NAME as HALF
from half_inversion import HalfInversion
from scipy.stats import chi2_contingency  # type: ignore[import-untyped]

from fl_ppseg.crypto.ciphers.cipher import SCOPES, Scope
from fl_ppseg.crypto.ciphers.etc import EtcParameters, _permutation, _spread
from fl_ppseg.crypto.ciphers.negative_positive import NegativePositiveParameters
from fl_ppseg.crypto.ciphers.registry import CIPHERS, get_cipher
from fl_ppseg.crypto.ciphers.shuffle import ShuffleParameters
from fl_ppseg.crypto.keys import SubKey
from fl_ppseg.data.blocks import Geometry

Block = np.ndarray[Any, np.dtype[np.uint8]]
"""(L,), or several (..., L)."""
SIZE = 8
NUM_DRAWS = 1600
TOO_RARE = 1e-6
"""p of the rarest statistic of a cipher and scope, times their number."""
PRODUCTS = (
    "negative-positive+shuffle",
    "negative-positive+shuffle-spatial",
    "restricted-shuffle+shuffle+negative-positive",
    "etc+shuffle+negative-positive",
    "shuffle+etc",
)


# Blocks of equal form, by another reading than the ciphers'.


def inverted(block: Block, places: Any) -> Block:
    changed = block.copy()
    changed[places] = 255 - changed[places]
    return changed


def moved_values(block: Block, rng: np.random.Generator) -> Iterator[Block]:
    yield np.sort(block)
    yield rng.permutation(block)


def moved_pixels(block: Block, rng: np.random.Generator) -> Iterator[Block]:
    pixels = block.reshape(3, -1)
    yield pixels[:, pixels.sum(axis=0).argsort()].ravel()
    yield pixels[:, rng.permutation(pixels.shape[1])].ravel()


def inverted_values(block: Block, rng: np.random.Generator) -> Iterator[Block]:
    """One alone (another parity), all, every other one, and at random."""
    yield inverted(block, 0)
    yield 255 - block
    yield inverted(block, np.s_[::2])
    yield inverted(block, rng.random(len(block)) < 0.5)


def turned_sub_blocks(block: Block, rng: np.random.Generator) -> Iterator[Block]:
    """One inverted, one turned, one with other colours; and all of it at random."""
    size = round((len(block) / 3) ** 0.5)
    half = size // 2
    for first in (
        lambda part: 255 - part,
        lambda part: np.rot90(part, axes=(1, 2)),
        lambda part: part[::-1],
    ):
        image = block.reshape(3, size, size).copy()
        image[:, :half, :half] = first(image[:, :half, :half])
        yield image.ravel()
    image = block.reshape(3, size, size)
    places = [np.s_[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    parts = [image[place] for place in places]
    other = image.copy()
    for place, source in zip(places, rng.permutation(4), strict=True):
        part = np.rot90(parts[source][rng.permutation(3)], rng.integers(4), axes=(1, 2))
        part = part[:, :, ::-1] if rng.integers(2) else part
        other[place] = 255 - part if rng.integers(2) else part
    yield other.ravel()


Alike = Callable[[Block, np.random.Generator], Iterator[Block]]


def both(first: Alike, second: Alike) -> Alike:
    def alike(block: Block, rng: np.random.Generator) -> Iterator[Block]:
        yield from second(block, rng)
        *_, one = first(block, rng)
        yield one
        yield from second(one, rng)

    return alike


ALIKE: dict[str, Alike] = {
    "values": moved_values,
    "pixels": moved_pixels,
    "placed-magnitudes": inverted_values,
    "magnitudes": both(moved_values, inverted_values),
    "pixel-magnitudes": both(moved_pixels, inverted_values),
    "sub-blocks": turned_sub_blocks,
}


# Tiny blocks: all parameters.


def permutations_of(length: int) -> np.ndarray[Any, Any]:
    return np.array(list(permutations(range(length))), np.uint8)


def all_shuffles(size: int) -> ShuffleParameters:
    return ShuffleParameters(permutations_of(3 * size**2))


def all_spatial_shuffles(size: int) -> ShuffleParameters:
    pixels = permutations_of(size**2)
    return ShuffleParameters(np.hstack([pixels + c * size**2 for c in range(3)]))


def all_inversions(size: int) -> NegativePositiveParameters:
    masks = np.array(list(product((0, 255), repeat=3 * size**2)), np.uint8)
    return NegativePositiveParameters(masks)


def halves_inverted(size: int) -> NegativePositiveParameters:
    mask = all_inversions(size).mask
    return NegativePositiveParameters(mask[(mask > 0).sum(axis=1) == 3 * size**2 // 2])


def all_etc(size: int) -> EtcParameters:
    """Of sub-blocks of one pixel, which have no turns: orders, colours and inversion."""
    assert size == 2
    shape = (24, 6, 6, 6, 6, 16)
    order, *own, sign = np.unravel_index(np.arange(np.prod(shape)), shape)
    geometry = Geometry(3, size, 1, 1)
    orders, colours = permutations_of(4)[order], permutations_of(3)[np.stack(own, axis=1)]
    signs = sign[:, None] >> np.arange(4) & 1
    turns = np.zeros(orders.shape, np.uint8)
    mask = (255 * signs).astype(np.uint8)[:, :, None, None, None]
    return EtcParameters(
        _permutation(orders, colours.reshape(-1, 3), turns, geometry), _spread(mask, geometry)
    )


TINY: dict[str, tuple[int, Sequence[tuple[str, Callable[[int], Any]]]]] = {
    "shuffle": (1, [("shuffle", all_shuffles)]),
    "shuffle-spatial": (2, [("shuffle-spatial", all_spatial_shuffles)]),
    "negative-positive": (1, [("negative-positive", all_inversions)]),
    "etc": (2, [("etc", all_etc)]),
    "shuffle+negative-positive": (
        1, [("shuffle", all_shuffles), ("negative-positive", all_inversions)]
    ),
    "negative-positive+shuffle": (
        1, [("negative-positive", all_inversions), ("shuffle", all_shuffles)]
    ),
    "shuffle-spatial+negative-positive": (
        2, [("shuffle-spatial", all_spatial_shuffles), ("negative-positive", all_inversions)]
    ),
}  # fmt: skip
BLOCKS = {
    1: [[200, 201, 202], [200, 201, 54], [0, 255, 255], [127, 3, 128]],
    2: [[200, 201, 202, 203, 210, 211, 212, 213, 128, 129, 130, 131], [255, 0, 9, 9] * 3],
}


def ciphertexts_of(block: Block, factors: Sequence[tuple[str, Any]]) -> dict[int, int]:
    """How often each comes out when all parameters are equally likely; by a hash of 64 bits."""
    found = block[None]
    for name, parameters in factors:
        count = len(parameters[0])
        each = np.repeat(found, count, axis=0)
        tiled = type(parameters)(*(np.tile(field, (len(found), 1)) for field in parameters))
        found = get_cipher(name).apply(each, tiled)
    factors_of_hash = np.random.default_rng(0).integers(1 << 63, size=len(block), dtype=np.uint64)
    hashes, counts = np.unique(found @ factors_of_hash, return_counts=True)
    return dict(zip(hashes.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("name", TINY)
def test_tiny_blocks_of_equal_form_have_the_same_ciphertexts(name: str) -> None:
    size, makers = TINY[name]
    factors = [(factor, every(size)) for factor, every in makers]
    form = get_cipher(name).form
    assert form is not None
    rng, kinds = np.random.default_rng(0), []
    for values in BLOCKS[size]:
        block = np.array(values, np.uint8)
        wanted = ciphertexts_of(block, factors)
        others = list(ALIKE[form](block, rng))[-3:]
        for other in others:
            assert ciphertexts_of(other, factors) == wanted
        kinds.append(wanted)
    for one, other in combinations(kinds, 2):  # blocks of other forms: no ciphertext in common
        assert not one.keys() & other.keys()


def test_every_cipher_with_a_form_is_enumerated() -> None:
    assert {name for name, cipher in CIPHERS.items() if cipher.form is not None} <= set(TINY)


# Real blocks: statistics under fresh keys.


def street_blocks() -> list[Block]:
    """(L,): on one side of mid-grey, as most are, and across it; with texture."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(0, 20, SIZE)[:, None] + np.linspace(0, 9, SIZE)
    noise = rng.integers(0, 8, (2, 3, SIZE, SIZE))
    tint = np.array([0, 14, 30])[:, None, None]
    images = (140 + 2 * ramp + tint + noise[0], 90 + 3 * ramp - tint + noise[1])
    return [image.astype(np.uint8).ravel() for image in images]


def stacked(parameters: Sequence[Any]) -> Any:
    """Several draws as one along a new first axis."""
    first = parameters[0]
    if not isinstance(first, tuple):
        return np.stack(parameters)
    fields = [stacked(field) for field in zip(*parameters, strict=True)]
    return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)


class Draws:
    """Parameters under fresh keys, for one block each."""

    def __init__(self, name: str, scope: Scope) -> None:
        self.cipher, self.scope = get_cipher(name), scope
        grid = (1, 1) if scope == "common" else (2, 4)
        self.geometry = Geometry(3, SIZE, *grid)
        number = NUM_DRAWS // self.geometry.num_blocks
        drawn = [self.cipher.draw(SubKey.generate(), self.geometry, scope) for _ in range(number)]
        self.parameters = stacked(drawn)
        self.shape = (number, self.geometry.num_blocks, self.geometry.block_length)

    def of(self, block: Block) -> Block:
        """(L,) -> (NUM_DRAWS, L) ciphertexts."""
        secret = self.cipher.apply(np.broadcast_to(block, self.shape).copy(), self.parameters)
        return secret.reshape(-1, self.shape[-1])


def statistics_of(secret: Block) -> dict[str, Any]:
    """(n, L) -> by name (n,) integers."""
    values, bright = secret.astype(int), secret > 127
    count, length = bright.sum(axis=1), secret.shape[1]
    image = values.reshape(-1, 3, SIZE, SIZE)
    halves = {"left": values[:, : length // 2], "right": values[:, length // 2 :]}
    return {
        "bright": count,
        "parity": count % 2,
        "unbalance": abs(2 * count - length),
        "balanced": count == length // 2,
        **{f"bright {c}": bright.reshape(-1, 3, SIZE**2)[:, c].sum(axis=1) for c in range(3)},
        **{f"sum of {side}": half.sum(axis=1) for side, half in halves.items()},
        **{f"parity of {side}": (half > 127).sum(axis=1) % 2 for side, half in halves.items()},
        "difference of halves": halves["left"].sum(axis=1) - halves["right"].sum(axis=1),
        "sum of squares": (values**2).sum(axis=1),
        "first": values[:, 0],
        "last": values[:, -1],
        "ordered pair": 2 * (values[:, 0] < values[:, 1]) + (values[:, 1] < values[:, 2]),
        "bright pair": 2 * bright[:, 0] + bright[:, 1],
        "pair of a pixel": values[:, 0] + values[:, SIZE**2],
        "changes": (bright[:, 1:] != bright[:, :-1]).sum(axis=1),
        "edges": abs(np.diff(image, axis=2)).sum(axis=(1, 2, 3)),
        "colour": abs(image[:, 0] - image[:, 1]).sum(axis=(1, 2)),
        "greatest": values.max(axis=1),
        "place of the greatest": values.argmax(axis=1),
        "upper left": image[:, :, : SIZE // 2, : SIZE // 2].sum(axis=(1, 2, 3)),
    }


def p_value(one: Any, other: Any) -> float:
    """Chi-square: that two samples of a statistic are of one distribution."""
    pooled = np.concatenate([one, other]).astype(int)
    edges = np.unique(np.quantile(pooled, np.linspace(0, 1, 9), method="lower"))
    bins = np.searchsorted(edges, pooled, side="right")
    table = np.stack([np.bincount(part, minlength=10) for part in np.split(bins, [len(one)])])
    rare = table.sum(axis=0) < 20  # too few for the chi-square's approximation: put together
    kept = np.hstack([table[:, ~rare], table[:, rare].sum(axis=1, keepdims=True)])
    kept = kept[:, kept.sum(axis=0) >= 20]
    return 1.0 if kept.shape[1] < 2 else float(chi2_contingency(kept, correction=False).pvalue)


def rarest(name: str, scope: Scope, form: str) -> tuple[float, str]:
    """The least p of all statistics and pairs of blocks of equal form, times their number."""
    draws, others = Draws(name, scope), Draws(name, scope)
    rng, found = np.random.default_rng(1), []
    for block in street_blocks():
        wanted = statistics_of(draws.of(block))
        for other in ALIKE[form](block, rng):
            got = statistics_of(others.of(other))
            found += [(p_value(wanted[each], got[each]), each) for each in wanted]
    p, which = min(found)
    return p * len(found), which


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", dict.fromkeys((*NAMES, *PRODUCTS)))
def test_ciphertexts_of_blocks_of_equal_form_are_drawn_alike(name: str, scope: Scope) -> None:
    form = get_cipher(name).form
    if form is None:
        assert {"ffx", "restricted-shuffle"} & set(name.split("+"))
        return
    p, which = rarest(name, scope, form)
    assert p > TOO_RARE, f"{which} tells more than the form {form}: p = {p:.1e}"


# What tells more than its form fails.


COUNTS = {"bright", "parity", "unbalance", "balanced"}
MORE: dict[str, tuple[Scope, str, set[str] | None]] = {
    HALF: ("common", "placed-magnitudes", COUNTS),
    f"shuffle+{HALF}": ("per-block", "magnitudes", COUNTS),
    f"shuffle-spatial+{HALF}": ("per-block", "pixel-magnitudes", COUNTS),
    "etc": ("common", "magnitudes", None),
    "negative-positive": ("per-block", "magnitudes", None),
    "restricted-shuffle": ("per-block", "values", None),
    "shuffle-spatial": ("per-block", "values", None),
}
"""By cipher: a scope, a form that does not say all that survives, statistics that tell it best."""


@pytest.mark.parametrize("name", MORE)
def test_a_cipher_that_tells_more_than_a_form_fails(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CIPHERS, HALF, HalfInversion())  # type: ignore[arg-type]
    scope, form, why = MORE[name]
    p, which = rarest(name, scope, form)
    assert p < TOO_RARE * TOO_RARE
    assert why is None or which in why


def test_tiny_blocks_tell_an_inversion_of_half_from_one_by_a_bit_a_value() -> None:
    one, other = (np.array(values, np.uint8) for values in ([200, 201, 202], [200, 201, 53]))
    for every, is_alike in ((all_inversions, True), (halves_inverted, False)):
        factors = [("negative-positive", every(1))]
        assert (ciphertexts_of(one, factors) == ciphertexts_of(other, factors)) == is_alike
