"""The local update: pure, the same bits anywhere, and what its formulas say."""

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import small_federation as small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_setr import tiny
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.data.shard import Manifest, Shard, ShardPart
from fl_ppseg.learning.losses import class_weights, pixel_loss
from fl_ppseg.learning.reach import poly
from fl_ppseg.learning.training import (
    LocalUpdate,
    Position,
    local_update,
)
from fl_ppseg.setr.model import Logits
from fl_ppseg.setr.names import EMBEDDING_TENSORS

SIZE = (32, 64)
CONFIG = TrainingConfig(batch_size=2)
FIRST, SECOND = Position(1, 4), Position(2, 4)


def shard(num_images: int = 3, num_views: int = 2, client: str = "aachen", ignored: bool = False):
    """Noise with labels that follow its brightness, so that there is something to learn."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (num_images, num_views, 3, *SIZE), dtype=np.uint8)
    labels = (images[:, :, 0] // 64 + 3).astype(np.uint8)
    labels[:, :, :4] = 255
    if ignored:
        labels[:] = 255
    manifest = Manifest(1, client, "", 8, num_images, num_views, [])
    nothing = np.zeros((0, 3, *SIZE), np.uint8)
    return Shard([ShardPart(manifest, images, labels, nothing, np.zeros(0, np.uint8))])


def update(
    config: TrainingConfig = CONFIG,
    data: Shard | None = None,
    position: Position = FIRST,
    seed: int = 5,
    changes: Mapping[str, Any] = {},
    **options: Any,
) -> LocalUpdate:
    network = small.model(**changes)
    start = small.weights_of(network)
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(torch.nan)  # a model's own weights must not matter
    return local_update(network, start, {}, data or shard(), config, position, seed, **options)


def update_bits(_: int = 0) -> str:
    """For a process of its own."""
    return small.bits(update(changes={"dropout": 0.2}).weights)


def drift(update: LocalUpdate, **changes: Any) -> float:
    """Largest distance of a weight from where it started."""
    start = small.weights_of(small.model(**changes))
    return max(float((update.weights[name] - start[name]).abs().max()) for name in start)


# Pure: the same bits, and nothing changed outside.


def test_same_bits_twice_after_other_work_and_with_other_threads() -> None:
    first = update_bits()
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(count)
            np.random.seed(count)  # noqa: NPY002  the global state is what must not matter
            random.seed(count)
            torch.rand(100)
            assert update_bits() == first
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)


def test_same_bits_in_another_process() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(update_bits, 0).result() == update_bits()


def test_random_state_and_threads_of_the_caller_stay() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    update(changes={"dropout": 0.2})
    with pytest.raises(RuntimeError, match="Missing key"):
        local_update(small.model(), {}, {}, shard(), CONFIG, Position(1, 1), 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == threads


def test_given_weights_are_not_written_to() -> None:
    network = small.model()
    weights = small.weights_of(network)
    before = small.bits(weights)
    result = local_update(network, weights, {}, shard(), CONFIG, Position(1, 1), 0)
    kept = small.bits(result.weights)
    assert small.bits(weights) == before != kept
    with torch.no_grad():
        network.decoder.classifier.conv.bias.fill_(9)
    assert small.bits(result.weights) == kept


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 6},
        {"position": SECOND},
        {"data": shard(client="bochum")},
    ],
    ids=["seed", "round", "client"],
)
def test_order_of_views_depends_on_seed_round_and_client(other: dict[str, Any]) -> None:
    constant = CONFIG.model_copy(update={"poly_power": 0.0})
    assert small.bits(update(constant, **other).weights) != small.bits(update(constant).weights)


# Views: in each epoch every image once.


class Watched(Shard):
    """A shard that notes what is asked of it."""

    def __init__(self, inner: Shard) -> None:
        super().__init__(inner.parts)
        self.asked: list[tuple[int, int]] = []

    def batch(self, indices, views):
        self.asked += zip(indices, views, strict=True)
        return super().batch(indices, views)


@pytest.mark.parametrize(("num_images", "batch_size", "epochs"), [(5, 2, 3), (4, 4, 1), (1, 8, 2)])
def test_every_image_once_an_epoch(num_images: int, batch_size: int, epochs: int) -> None:
    watched = Watched(shard(num_images, num_views=4))
    config = TrainingConfig(batch_size=batch_size, local_epochs=epochs)
    steps: list[tuple[int, int]] = []
    result = update(config, watched, on_step=lambda *step: steps.append(step))
    seen = np.array(watched.asked).reshape(epochs, num_images, 2)
    assert (np.sort(seen[:, :, 0], axis=1) == np.arange(num_images)).all()
    assert seen[:, :, 1].max() < 4
    total = epochs * -(-num_images // batch_size)
    assert steps == [(step + 1, total) for step in range(total)]
    assert result.num_examples == num_images


def test_a_pass_sees_its_share_of_the_images_drawn_anew() -> None:
    watched = Watched(shard(9, num_views=4))
    config = TrainingConfig(batch_size=2, local_epochs=6, pass_fraction=1 / 3)
    steps: list[tuple[int, int]] = []
    update(config, watched, on_step=lambda *step: steps.append(step))
    passes = np.array(watched.asked).reshape(6, 3, 2)[:, :, 0]
    assert all(len(set(seen)) == 3 for seen in passes.tolist())
    assert len({tuple(sorted(seen)) for seen in passes.tolist()}) > 1
    assert steps[-1] == (6 * 2, 6 * 2)


# Class weights.


@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_class_weights_are_one_in_the_mean_over_pixels(balance: float) -> None:
    counts = np.array([9000, 900, 90, 0, 10])
    weights = class_weights(counts, balance)
    assert np.isclose((weights * counts).sum() / counts.sum(), 1)
    assert np.allclose(weights[[0, 1]] / weights[1], [10**-balance, 1])
    assert weights[3] == 1


def test_a_class_of_a_few_pixels_weighs_no_more_than_one_of_the_smallest_share() -> None:
    few = class_weights(np.array([10**9, 1]), 0.5)
    rare = class_weights(np.array([10**9, 10**5]), 0.5)
    assert np.allclose(few[1] / few[0], rare[1] / rare[0], rtol=1e-3)


def test_the_weighted_loss_is_torchs_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 8, generator=generator)
    labels = torch.randint(0, 4, (2, 6, 8), generator=generator)
    labels[0, :3] = 255
    weights = torch.tensor([0.5, 1.0, 3.0, 0.0, 7.0])  # of more classes than there are
    wanted = nn.functional.cross_entropy(logits, labels, weights[:4], ignore_index=255)
    found = pixel_loss(logits, labels.byte(), TrainingConfig(), weights)
    assert torch.allclose(found, wanted)
    nothing = pixel_loss(logits, torch.full_like(labels, 255).byte(), TrainingConfig(), weights)
    assert nothing == 0


def test_a_client_weighs_by_its_own_label_maps() -> None:
    """Whose labels are of one class trains as without weights; whose are not does not."""
    even, mixed = shard(4), shard(4)
    for part in even.parts:
        part.labels[:] = 3
    for part in mixed.parts:
        part.labels[:] = 3
        part.labels[:, :, :8] = 1
    plain, balanced = TrainingConfig(), TrainingConfig(class_balance=0.5)
    assert small.bits(update(plain, even).weights) == small.bits(update(balanced, even).weights)
    assert small.bits(update(plain, mixed).weights) != small.bits(update(balanced, mixed).weights)


# Optimisers and schedule, on a model of one weight.


class OneWeight(nn.Module):
    """Scores of two classes, (w, 0), wherever; `shift` plays the backbone and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.backbone = nn.Module()
        self.backbone.shift = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Logits:
        scores = torch.stack([self.weight, self.weight * 0 + self.backbone.shift * 0])
        return Logits(scores[None, :, :, None].expand(len(images), 2, *SIZE), ())


def one_weight(
    config: TrainingConfig, num_images: int = 3, position: Position = SECOND
) -> LocalUpdate:
    data = shard(num_images)
    (part,) = data.parts
    data = Shard([replace(part, labels=np.zeros_like(part.labels))])
    start = {"weight": torch.tensor([0.5]), "backbone.shift": torch.zeros(1)}
    return local_update(OneWeight(), start, {}, data, config, position, 0)


def slope(weight: float) -> float:
    """d/dw of the cross entropy -log(e^w / (e^w + 1))."""
    return 1 / (1 + np.exp(-weight)) - 1


def test_sgd_with_momentum_and_poly_by_hand() -> None:
    config = TrainingConfig(
        optimizer="sgd", learning_rate=0.4, momentum=0.5, batch_size=1, head_multiplier=3.0,
        gradient_clip=0.0, poly_power=0.9,
    )  # fmt: skip
    weight, velocity = 0.5, 0.0
    for step in range(3):
        rate = 0.4 * 3.0 * (1 - (1 + step / 3) / 4) ** 0.9
        velocity = 0.5 * velocity + slope(weight)
        weight -= rate * velocity
    assert float(one_weight(config).weights["weight"]) == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("decoder", ["naive", "pup", "mla"])
def test_heads_alone_learn_at_their_own_rate(decoder: str) -> None:
    """mmsegmentation's `head` multiplier: MLA's neck, its norms included, is no head; the norms of
    naive and pup lie in their heads. Adam's first step is the rate itself."""
    model = tiny(decoder=decoder, num_auxiliary=1, size=SIZE)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainingConfig(
        learning_rate=1e-3, head_multiplier=10.0, batch_size=3, weight_decay=0.0, gradient_clip=0.0
    )
    after = local_update(model, start, {}, shard(3), config, Position(1, 1), 0).weights
    fast = ("decoder.", "auxiliary.") + (() if decoder == "mla" else ("norms.",))
    for name, value in after.items():
        moved = float((value - start[name]).abs().max())
        rate = 1e-2 if name.startswith(fast) else 1e-3
        assert moved == pytest.approx(rate, rel=0.05), name


def test_adamw_moves_by_the_rate_and_vectors_do_not_decay() -> None:
    """Adam's first step is the rate itself, whatever the gradient (Kingma and Ba 2015)."""
    config = TrainingConfig(learning_rate=0.02, batch_size=3, weight_decay=0.5, gradient_clip=0.0)
    found = float(one_weight(config, position=Position(3, 4)).weights["weight"])
    assert found == pytest.approx(0.5 + 0.02 * (1 - 2 / 4) ** 0.9, abs=1e-6)


def test_gradient_clip_by_hand() -> None:
    config = TrainingConfig(optimizer="sgd", learning_rate=1.0, batch_size=3, gradient_clip=0.01)
    found = float(one_weight(config, position=Position(1, 1)).weights["weight"])
    assert found == pytest.approx(0.5 + 0.01, abs=1e-6)
    free = config.model_copy(update={"gradient_clip": 0.0})
    found = float(one_weight(free, position=Position(1, 1)).weights["weight"])
    assert found == pytest.approx(0.5 - slope(0.5), abs=1e-6)


def test_fedprox_by_hand() -> None:
    """The gradient of mu/2 |w - w0|^2 is mu (w - w0): nothing in the first step, then a pull."""
    config = TrainingConfig(
        optimizer="sgd", learning_rate=0.1, momentum=0.0, batch_size=1, poly_power=0.0,
        gradient_clip=0.0, proximal_mu=2.0,
    )  # fmt: skip
    weight = 0.5
    for _ in range(3):
        weight -= 0.1 * (slope(weight) + 2.0 * (weight - 0.5))
    assert float(one_weight(config).weights["weight"]) == pytest.approx(weight, abs=1e-6)


def test_loss_is_the_mean_over_views() -> None:
    """Without a step worth its name the loss stays -log sigmoid(w), last short batch or not."""
    config = TrainingConfig(learning_rate=1e-12, batch_size=2)
    assert one_weight(config).loss == pytest.approx(np.log1p(np.exp(-0.5)), abs=1e-6)


@pytest.mark.parametrize("is_able", [True, False])
def test_bfloat16_on_a_cpu_that_computes_in_it_alone(
    is_able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": is_able})
    full, half = update(CONFIG), update(CONFIG.model_copy(update={"amp_cpu": True}))
    assert (small.bits(full.weights) == small.bits(half.weights)) != is_able
    assert all(value.dtype != torch.bfloat16 for value in half.weights.values())
    assert abs(full.loss - half.loss) < 0.05


@pytest.mark.parametrize(("amp_cpu", "most"), [(False, 512), (True, 512), (True, 1)])
def test_attention_in_bfloat16_is_two_products_where_tokens_are_few(
    amp_cpu: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the fused kernel of a CPU is slow; elsewhere, and after training, it is used."""
    seen: list[bool] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr("fl_ppseg.learning.training.MAX_MULTIPLIED", most)
    attend = Attention.forward

    def noted(self: Attention, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(self.fused_attn)
        return attend(self, *args, **kwargs)

    monkeypatch.setattr(Attention, "forward", noted)
    model = small.model()
    config = CONFIG.model_copy(update={"amp_cpu": amp_cpu})
    local_update(model, small.weights_of(model), {}, shard(), config, FIRST, 5)
    assert set(seen) == {not amp_cpu or most == 1}
    assert all(each.fused_attn for each in model.modules() if isinstance(each, Attention))


def test_attention_is_the_same_in_either_way() -> None:
    model, images = small.model().eval(), torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        fused = model(images).main
        model.set_fused_attention(False)
        products = model(images).main
    torch.testing.assert_close(products, fused, rtol=1e-4, atol=1e-5)
    assert not torch.equal(fused, torch.zeros_like(fused))


def test_large_mu_keeps_weights_near_the_global_ones() -> None:
    config = CONFIG.model_copy(
        update={"optimizer": "sgd", "learning_rate": 1e-3, "local_epochs": 4, "poly_power": 0.0,
                "gradient_clip": 0.0, "momentum": 0.0}
    )  # fmt: skip
    near = config.model_copy(update={"proximal_mu": 900.0})
    assert 0 < drift(update(near)) < 0.5 * drift(update(config))


@given(st.floats(0, 0.999), st.floats(0, 3))
def test_poly_falls_from_one(progress: float, power: float) -> None:
    assert poly(0.0, power) == 1.0
    assert poly(progress, 0.0) == 1.0
    assert 0 < poly(progress, power) <= 1
    assert poly(progress / 2, power) >= poly(progress, power)


# What trains and what does not.


def test_frozen_tensors_keep_their_bits_and_all_others_move() -> None:
    start = small.weights_of(small.model())
    result = update(rates=dict.fromkeys(EMBEDDING_TENSORS, 0.0)).weights
    still = {name for name in start if torch.equal(result[name], start[name])}
    assert still == set(EMBEDDING_TENSORS)


def test_a_rate_is_a_factor_on_the_learning_rate() -> None:
    """SGD's first step is the rate times the gradient, which no factor of this step changes."""
    config = CONFIG.model_copy(update={"optimizer": "sgd", "batch_size": 8, "gradient_clip": 0.0})
    config = config.model_copy(update={"weight_decay": 0.0, "learning_rate": 0.1})
    start = small.weights_of(small.model())
    full, tenth = update(config), update(config, rates=dict.fromkeys(EMBEDDING_TENSORS, 0.1))
    for name, value in start.items():
        factor = 0.1 if name in EMBEDDING_TENSORS else 1.0
        step = (full.weights[name] - value) * factor
        torch.testing.assert_close(tenth.weights[name] - value, step, atol=1e-7, rtol=1e-4)
    assert small.bits(update(config, rates=dict.fromkeys(start, 1.0)).weights) == small.bits(
        full.weights
    )


def test_a_model_that_was_frozen_once_trains_again() -> None:
    """Nodes keep one model for all arms."""
    network = small.model()
    start = small.weights_of(network)
    arguments = (start, {}, shard(), CONFIG, Position(1, 4), 5)
    local_update(network, *arguments, rates=dict.fromkeys(EMBEDDING_TENSORS, 0.0))
    again = local_update(network, *arguments)
    assert small.bits(again.weights) == small.bits(update().weights)


def test_private_tensors_come_back_apart() -> None:
    start = small.weights_of(small.model())
    private = {name: start.pop(name) * 2 for name in EMBEDDING_TENSORS}
    result = local_update(small.model(), start, private, shard(), CONFIG, Position(1, 1), 0)
    assert result.weights.keys() == start.keys()
    assert result.private.keys() == private.keys()
    assert all(not torch.equal(result.private[name], private[name]) for name in private)


def test_auxiliary_heads_train_by_their_weight() -> None:
    changes = {"num_auxiliary": 1, "depth": 4}
    start = small.weights_of(small.model(**changes))
    names = [name for name in start if name.startswith("auxiliary.")]
    assert names
    config = CONFIG.model_copy(update={"weight_decay": 0.0})
    with_heads = update(config, changes=changes)
    without = update(config.model_copy(update={"auxiliary_weight": 0.0}), changes=changes)
    assert all(not torch.equal(with_heads.weights[name], start[name]) for name in names)
    assert all(torch.equal(without.weights[name], start[name]) for name in names)
    assert with_heads.loss > without.loss


def test_training_learns() -> None:
    """Four classes at random are ln 4 at best, nineteen at the start."""
    config = TrainingConfig(batch_size=4, learning_rate=1e-2, local_epochs=40, poly_power=0.0)
    assert update(data=shard(4)).loss > 2.5
    trained = update(config, shard(4))
    network = small.model()
    again = local_update(network, trained.weights, {}, shard(4), CONFIG, Position(1, 1), 0)
    assert again.loss < 1.45


@pytest.mark.parametrize("ohem_fraction", [1.0, 0.3])
def test_only_ignored_labels_give_no_loss_and_leave_the_weights(ohem_fraction: float) -> None:
    config = CONFIG.model_copy(update={"ohem_fraction": ohem_fraction, "weight_decay": 0.0})
    result = update(config, shard(ignored=True))
    assert (result.loss, result.num_examples) == (None, 0)
    assert drift(result) == 0.0


# The loss against torch's own.

LABELS = st.integers(0, 2**32).map(
    lambda seed: torch.from_numpy(
        np.random.default_rng(seed).choice([0, 1, 2, 255], (2, 6, 8)).astype(np.uint8)
    )
)


def scores(labels: Tensor) -> Tensor:
    return torch.randn(2, 3, *labels.shape[1:], generator=torch.Generator().manual_seed(3))


@settings(max_examples=30)
@given(LABELS)
def test_loss_is_torchs_mean(labels: Tensor) -> None:
    wanted = functional.cross_entropy(scores(labels), labels.long(), ignore_index=255)
    for size in ("logits", "labels"):
        found = pixel_loss(scores(labels), labels, TrainingConfig(loss_size=size))
        torch.testing.assert_close(found, wanted)


@settings(max_examples=30)
@given(LABELS, st.floats(0.05, 0.95))
def test_ohem_is_the_mean_of_the_hardest(labels: Tensor, fraction: float) -> None:
    log_probabilities = scores(labels).double().log_softmax(1).numpy()
    losses = [
        -log_probabilities[b, labels[b, y, x], y, x]
        for b, y, x in np.argwhere(labels.numpy() != 255)
    ]
    hardest = sorted(losses, reverse=True)[: max(1, int(fraction * len(losses)))]
    found = pixel_loss(scores(labels), labels, TrainingConfig(ohem_fraction=fraction))
    assert float(found) == pytest.approx(np.mean(hardest), rel=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("logits", lambda x, y: functional.cross_entropy(x, y[:, 1::2, 1::2], ignore_index=255)),
        (
            "labels",
            lambda x, y: functional.cross_entropy(
                functional.interpolate(x, scale_factor=2, mode="bilinear"), y, ignore_index=255
            ),
        ),
    ],
)
def test_loss_is_taken_where_the_config_says(size: Any, expected: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 3, 4, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 8), generator=generator)
    labels[:, 0] = 255
    found = pixel_loss(logits, labels.byte(), TrainingConfig(loss_size=size))
    torch.testing.assert_close(found, expected(logits, labels))


def test_gradient_of_an_ignored_map_is_zero() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    for fraction in (1.0, 0.5):
        labels = torch.full((1, 4, 4), 255, dtype=torch.uint8)
        loss = pixel_loss(logits, labels, TrainingConfig(ohem_fraction=fraction))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == 0.0
        assert (gradient == 0).all()
