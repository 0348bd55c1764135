"""The benchmark of a diffusion prior: its formulas, its sampler and its training."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.diffusion_prior import ddim, noised_and_sought, restored, with_noise


def test_what_is_sought_gives_the_image_back() -> None:
    images, noise = torch.randn(2, 5, 3, 8, 8)
    angles = torch.tensor([0, 0.3, 0.8, 1.2, math.pi / 2])
    noised, sought = noised_and_sought(images, noise, angles)
    torch.testing.assert_close(restored(noised, sought, angles), images)
    torch.testing.assert_close(noised[0], images[0])
    torch.testing.assert_close(noised[-1], noise[-1])
    torch.testing.assert_close(sought[-1], images[-1])  # nothing to read but what survives


def test_samples_of_a_certain_image_are_that_image() -> None:
    image = torch.rand(1, 3, 8, 8) * 2 - 1

    def denoise(noised: Tensor, angles: Tensor) -> Tensor:
        a, s = angles.cos()[:, None, None, None], angles.sin()[:, None, None, None]
        return (image - a * noised) / s

    drawn = ddim(torch.randn(4, 3, 8, 8), denoise, 20)
    torch.testing.assert_close(drawn, image.expand(4, -1, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("deviation", [0.1, 0.3])
def test_samples_of_a_normal_distribution_have_its_deviation(deviation: float) -> None:
    """Of x ~ N(m, d^2) the best guess is known: E[x|z] = m + a d^2 (z - a m) / (a^2 d^2 + s^2)."""
    middle = 0.2

    def denoise(noised: Tensor, angles: Tensor) -> Tensor:
        a, s = angles.cos()[:, None, None, None], angles.sin()[:, None, None, None]
        share = a * deviation**2 / (a**2 * deviation**2 + s**2)
        return (middle + share * (noised - a * middle) - a * noised) / s

    torch.manual_seed(0)
    drawn = ddim(torch.randn(8, 3, 32, 32), denoise, 200)
    assert float(drawn.mean()) == pytest.approx(middle, abs=0.01)
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.03)


def test_the_network_is_told_the_noise_level_alike_everywhere() -> None:
    seen, noised = torch.randn(2, 6, 8, 16), torch.randn(2, 3, 8, 16)
    inputs = with_noise(seen, noised, torch.tensor([0.5, 0.9]))
    torch.testing.assert_close(inputs[:, :9], torch.cat([seen, noised], dim=1))
    levels = inputs[:, 9:]
    assert torch.equal(levels, levels[:, :, :1, :1].expand_as(levels))
    assert np.unique(levels[:, :, 0, 0].numpy()).size == 12
