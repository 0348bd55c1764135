"""The networks that ship: an audit's attacks start from what they restore already."""

from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fl_ppseg.audit.attacks.inverse_network import inverse_network
from fl_ppseg.audit.attacks.label_map import answer_network, labelled_network
from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.audit.attacks.reader import Budget, seen_of
from fl_ppseg.audit.attacks.reader_file import num_channels
from fl_ppseg.audit.attacks.starts import LABEL_MAP, load_start, start_file, steps_before
from fl_ppseg.audit.attacks.survivor_network import survivor_network
from fl_ppseg.config.sections import CanonicalForm
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.leaks.scores import score_images
from fl_ppseg.scenes.cities import city_style
from fl_ppseg.scenes.render import render_scene
from fl_ppseg.setr.shipped import WEIGHTS

FORMS = get_args(CanonicalForm)
BLOCK = 8
SIZE = (64, 128)
GRID = (64 // BLOCK, 128 // BLOCK)
LEAST = Budget(1)
"""One step, so that what is restored is the start's."""
SCRATCH = Budget(1, from_scratch=True)


@cache
def streets(num_images: int, city: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, H, W) scenes of a city that no network has seen, and (n, H, W) trainIds."""
    style, classes = city_style(city), load_class_table("cityscapes")
    scenes = [render_scene(style, 0, number, SIZE) for number in range(num_images)]
    images = np.stack([image.transpose(2, 0, 1) for image, _ in scenes])
    return images, np.stack([classes.encode(labels) for _, labels in scenes])


def reader_of(channels: int, guides: int = 0, grid: tuple[int, int] = GRID) -> Reader:
    torch.manual_seed(0)
    return Reader(channels, guides, BLOCK, grid).eval()


def channels_of(reads: str) -> int:
    return 4 if reads == LABEL_MAP else num_channels(reads, BLOCK)


def test_the_package_ships_these_and_they_are_small() -> None:
    files = {start_file(reads, BLOCK) for reads in (*FORMS, LABEL_MAP)}
    assert files == set(WEIGHTS.glob("restorer_*.safetensors"))
    assert sum(file.stat().st_size for file in files) < 10 * 10**6


def test_all_were_trained_as_long_as_each_other() -> None:
    """Or excess over the answer would compare budgets."""
    assert {steps_before(reads, BLOCK) for reads in (*FORMS, LABEL_MAP)} == {9600}
    assert steps_before(None, BLOCK) == steps_before("pixels", 16) == 0


@pytest.mark.parametrize("reads", [*FORMS, LABEL_MAP])
def test_further_channels_and_guides_change_nothing_at_first(reads: str) -> None:
    channels, more = channels_of(reads), 5
    alone, beside = reader_of(channels), reader_of(channels + more, guides=2)
    assert load_start(alone, reads) and load_start(beside, reads)
    file = load_file(start_file(reads, BLOCK))
    for name, value in alone.state_dict().items():
        assert torch.equal(value, file[name].float()), name
    inputs = torch.rand(1, channels + more, *(side * BLOCK for side in GRID)) * 2 - 1
    with torch.inference_mode():
        apart = alone(inputs[:, :channels]) - beside(inputs)
    assert apart.abs().max() < 1e-5


def test_the_positions_of_another_grid_are_interpolated() -> None:
    reader = reader_of(channels_of("values"), grid=(4, 4))
    assert load_start(reader, "values")
    own, shipped = reader.place, load_file(start_file("values", BLOCK))["place"].float()
    assert own.shape[2:] == (4, 4)
    assert abs(own.mean() - shipped.mean()) < 0.1 * shipped.abs().mean()


def test_a_reader_without_a_shipped_network_stays_as_it_is() -> None:
    for reads, block in (("sub-blocks", BLOCK), ("values", 16)):
        reader = Reader(num_channels("values", block), 0, block, (2, 2))
        before = {name: value.clone() for name, value in reader.state_dict().items()}
        assert not load_start(reader, reads)
        assert all(torch.equal(value, before[n]) for n, value in reader.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_an_attack_that_starts_from_it_restores_more(form: str) -> None:
    (public, _), (targets, _) = streets(8, "near"), streets(4, "far")
    scores = [
        score_images(
            targets, survivor_network(public, targets, form, block_size=BLOCK, budget=b), BLOCK
        ).ssim
        for b in (SCRATCH, LEAST)
    ]
    assert scores[1] > scores[0] + 0.02, scores


def test_all_attacks_that_learn_start_from_it() -> None:
    """After one step all that read a canonical form restore nearly what it restores."""
    (public, labels), (targets, maps) = streets(8, "near"), streets(2, "far")
    form = "pixels"
    common = {"block_size": BLOCK, "budget": LEAST}
    first = survivor_network(public, targets, form, **common)
    others = [
        inverse_network(public, targets, lambda images: images, form, **common),
        labelled_network(public, labels, targets, maps, form, num_classes=19, **common),
    ]
    for guess in others:
        assert np.abs(guess.astype(int) - first).mean() < 8
    blind = np.broadcast_to(public.mean(axis=0), targets.shape).astype(np.uint8)
    answer = answer_network(public, labels, maps, num_classes=19, **common)
    ssim = [score_images(targets, each, BLOCK).ssim for each in (answer, blind)]
    assert ssim[0] > ssim[1]
    assert seen_of(targets, None, BLOCK, raw=False).shape == (2, 1, *SIZE)
