"""The streaming mean against exact arithmetic (math.fsum), whatever the order of the replies."""

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.aggregation import streaming_mean
from strategies.aggregation.streaming_mean import StreamingMean, check_update

Arrays = dict[str, np.ndarray]
Update = tuple[float, int]
"""One weight and its num_examples."""

LAWS = settings(max_examples=100)
SPAN = 40
"""Binades over which the sum is exact, from the docstring of the module."""


def fp32(low: int, high: int) -> st.SearchStrategy[float]:
    """Zeros and values of both signs, of every mantissa, from 2^low to 2^high."""
    mantissas, exponents = st.integers(2**23, 2**24 - 1), st.integers(low, high - 1)
    return st.one_of(
        st.sampled_from([0.0, -0.0]),
        st.builds(
            lambda sign, mantissa, exponent: sign * math.ldexp(mantissa, exponent - 23),
            st.sampled_from([-1, 1]),
            mantissas,
            exponents,
        ),
    )


def updates(span: int) -> st.SearchStrategy[list[Update]]:
    """Replies whose values lie within `span` binades somewhere in the range of normal fp32."""
    return st.integers(-126, 127 - span).flatmap(
        lambda low: st.lists(
            st.tuples(fp32(low, low + span), st.integers(1, 4000)), min_size=1, max_size=12
        )
    )


def bits(value: np.ndarray) -> bytes:
    return value.tobytes()


def mean_of(replies: list[Update]) -> np.ndarray:
    mean = StreamingMean({"w": np.zeros(1, np.float32)})
    for value, num_examples in replies:
        mean.add({"w": np.array([value], np.float32)}, num_examples)
    return mean.result()["w"]


def exact_mean(replies: list[Update]) -> np.ndarray:
    total = math.fsum(value * num_examples for value, num_examples in replies)
    return np.array([total / sum(n for _, n in replies)]).astype(np.float32)


@LAWS
@given(updates(SPAN), st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bits(replies: list[Update], random: object) -> None:
    shuffled = list(replies)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert bits(mean_of(shuffled)) == bits(mean_of(replies))


@LAWS
@given(updates(SPAN))
def test_mean_is_the_exact_one_rounded_to_fp32(replies: list[Update]) -> None:
    assert mean_of(replies) == exact_mean(replies)


def test_a_plain_fp32_or_fp64_sum_would_not_pass() -> None:
    """Hand-worked: 2^60 hides 2^-10 from one fp64 (53 bits), not from a pair."""
    replies = [(2.0**30, 1), (2.0**-30, 1), (-(2.0**30), 1), (2.0**-30, 1)]
    assert sum(value for value, _ in replies) != 2.0**-29
    assert mean_of(replies) == np.float32(2.0**-31)


@LAWS
@given(updates(SPAN), st.integers(1, 2**29))
def test_one_reply_alone_is_returned_bit_for_bit(replies: list[Update], num_examples: int) -> None:
    values = np.array([value for value, _ in replies] + [-0.0, 1e-45, 3.4e38], np.float32)
    mean = StreamingMean({"w": values})
    mean.add({"w": values}, num_examples)
    assert bits(mean.result()["w"]) == bits(values)


def test_hand_worked_weighted_mean() -> None:
    """(1 * 2 + 3 * 6) / 4 = 5 and (1 * -4 + 3 * 0) / 4 = -1."""
    mean = StreamingMean({"w": np.zeros(2, np.float32)})
    mean.add({"w": np.array([2, -4], np.float32)}, 1)
    mean.add({"w": np.array([6, 0], np.float32)}, 3)
    assert mean.result()["w"].tolist() == [5.0, -1.0]
    assert mean.num_examples == 4


def test_shapes_and_dtypes_are_those_of_the_reference() -> None:
    """BatchNorm's num_batches_tracked is an int64 of no dimension: (3 * 10 + 1 * 50) / 4 = 20."""
    reference: Arrays = {
        "conv": np.zeros((2, 1, 3), np.float32),
        "half": np.zeros(2, np.float16),
        "num_batches_tracked": np.array(0),
    }
    mean = StreamingMean(reference)
    for tracked, num_examples in ((10, 3), (50, 1)):
        filled = {name: np.full_like(value, tracked) for name, value in reference.items()}
        mean.add(filled, num_examples)
    result = mean.result()
    for name, value in reference.items():
        assert isinstance(result[name], np.ndarray)
        assert (result[name].shape, result[name].dtype) == (value.shape, value.dtype)
        assert (result[name] == 20).all()


def good() -> Arrays:
    return {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}


def spoilt(name: str, value: np.ndarray) -> Callable[[], Arrays]:
    return lambda: good() | {name: value}


BAD_UPDATES = {
    "NaN": (spoilt("b", np.array([1, np.nan], np.float32)), 1, "b holds NaN"),
    "infinity": (spoilt("b", np.array([1, -np.inf], np.float32)), 1, "b holds NaN or infinity"),
    "shape": (spoilt("b", np.ones((2, 1), np.float32)), 1, "b has another shape"),
    "dtype": (spoilt("b", np.ones(2, np.float64)), 1, "b has another shape or dtype"),
    "more": (spoilt("c", np.ones(2, np.float32)), 1, "other array names"),
    "fewer": (lambda: {"w": good()["w"]}, 1, "other array names"),
    "zero examples": (good, 0, "expected num_examples above 0"),
    "negative examples": (good, -3, "expected num_examples above 0"),
}


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_bad_updates_are_refused_and_leave_the_mean_as_it_was(case: str) -> None:
    update, num_examples, why = BAD_UPDATES[case]
    mean = StreamingMean(good())
    mean.add({name: 3 * value for name, value in good().items()}, 2)
    before = {name: bits(value) for name, value in mean.result().items()}
    with pytest.raises(ValueError, match=why):
        mean.add(update(), num_examples)
    with pytest.raises(ValueError, match=why):
        check_update(update(), num_examples, good())
    assert {name: bits(value) for name, value in mean.result().items()} == before
    assert mean.num_examples == 2


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one reply"):
        StreamingMean(good()).result()


def peak_bytes(num_replies: int, shape: tuple[int, ...]) -> int:
    def replies() -> object:
        for k in range(num_replies):
            yield {"w": np.full(shape, k, np.float32)}

    mean = StreamingMean({"w": np.zeros(shape, np.float32)})
    tracemalloc.start()
    try:
        for reply in replies():  # type: ignore[attr-defined]
            mean.add(reply, 1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_replies() -> None:
    shape = (256, 1024)
    one_reply = 4 * 256 * 1024
    few, many = peak_bytes(4, shape), peak_bytes(40, shape)
    assert many - few < one_reply / 2


def test_memory_of_replies_that_are_near_each_other_is_that_of_one_fp64_sum() -> None:
    """Two fp32 copies; a pair of sums for all weights would take four, and these do not fit."""
    shape = (256, 1024)
    few, many = peak_bytes(4, shape), peak_bytes(40, shape)
    assert max(few, many) < 3.6 * 4 * 256 * 1024  # with one reply and what is computed between


@LAWS
@given(st.lists(updates(SPAN), min_size=1, max_size=40), st.integers(1, 64))
def test_errors_are_summed_alike_wherever_they_are_kept(
    weights: list[list[Update]], sparse_share: int
) -> None:
    """Of few weights with errors, of all, and from the one to the other: the same bits."""
    num_replies = min(map(len, weights))
    means = []
    for share in (sparse_share, 10**9):  # 10^9: for all elements from the first error on
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streaming_mean, "SPARSE_SHARE", share)
            patch.setattr(streaming_mean, "BLOCK", 3)
            mean = StreamingMean({"w": np.zeros(len(weights), np.float32)})
            for number in range(num_replies):
                values = np.array([replies[number][0] for replies in weights], np.float32)
                mean.add({"w": values}, weights[0][number][1])
            means.append(bits(mean.result()["w"]))
    assert means[0] == means[1]
