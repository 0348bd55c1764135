"""The start of an invariant embedding, against numpy's least squares and a case with no loss."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor

from fl_ppseg.setr.canonical import InvariantPatchEmbed, canonical
from fl_ppseg.setr.least_squares import fit_embedding
from fl_ppseg.setr.ridge import RIDGE, fit, linear_map, ridge

SIDE, WIDTH = 2, 5


def embeddings(form: str) -> tuple[InvariantPatchEmbed, PatchEmbed]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = PatchEmbed(img_size=(8, 12), patch_size=SIDE, embed_dim=WIDTH)
        return InvariantPatchEmbed(plain, form), plain


def images(number: int, seed: int = 0) -> Tensor:
    generator = np.random.Generator(np.random.Philox(seed))
    values = generator.integers(0, 256, (number, 3, 8, 12), dtype=np.uint8)
    return (2 * torch.from_numpy(values).float() - 255) / 255


def twice(batches: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Given to both embeddings as they are."""
    return [(batch, batch) for batch in batches]


def test_it_is_the_least_squares_solution_of_numpy() -> None:
    embedding, plain = embeddings("values")
    given = images(40)
    explained = fit_embedding(embedding, plain, twice(given.split(7)))
    form = canonical(given, "values", SIDE).numpy()
    # B 6 gh y gw x -> B gh gw 6 y x
    blocks = form.reshape(40, 6, 4, 2, 6, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 24)
    design = np.hstack([blocks, np.ones((len(blocks), 1))]).astype(np.float64)
    with torch.inference_mode():
        tokens = plain(given).flatten(0, 1).double().numpy()
        fitted = embedding(given).flatten(0, 1).double().numpy()
    # ridge regression is least squares with a row for each penalty
    penalty = np.diag(np.sqrt(RIDGE * ((design**2).sum(axis=0) + 1)))
    rows, wanted = np.vstack([design, penalty]), np.vstack([tokens, np.zeros((25, WIDTH))])
    best = design @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    assert fitted == pytest.approx(best, abs=1e-5)
    residual = ((tokens - fitted) ** 2).sum() / ((tokens - tokens.mean(0)) ** 2).sum()
    assert explained == pytest.approx(1 - residual, abs=1e-4)
    assert 0.05 < explained < 0.95


@pytest.mark.parametrize("form", ["values", "pixels"])
def test_what_survives_is_kept_whole(form: str) -> None:
    embedding, plain = embeddings(form)
    with torch.no_grad():  # a mean over the pixels of the block
        by_channel = [1.0, 1.0, 1.0] if form == "values" else [0.2, -0.5, 1.0]
        plain.proj.weight.copy_(torch.tensor(by_channel).view(1, 3, 1, 1).expand(WIDTH, 3, 2, 2))
    assert fit_embedding(embedding, plain, twice(images(40).split(8))) > 0.999
    fresh = images(3, seed=1)
    with torch.inference_mode():
        assert torch.allclose(embedding(fresh), plain(fresh), atol=5e-3)


def test_the_plain_embedding_stays_as_it_is() -> None:
    embedding, plain = embeddings("pixels")
    before = [parameter.clone() for parameter in plain.parameters()]
    fit_embedding(embedding, plain, twice(images(8).split(8)))
    assert all(map(torch.equal, before, plain.parameters()))


def test_batches_do_not_matter_and_constants_are_fitted() -> None:
    generator = np.random.Generator(np.random.Philox(1))
    seen = generator.normal(3, 1, (60, 4))
    wanted = seen @ generator.normal(size=(4, 2)) - 7 + generator.normal(size=(60, 2))
    parts = [(seen[first : first + 7], wanted[first : first + 7]) for first in range(0, 60, 7)]
    whole = fit([(seen, wanted)])
    assert ridge(parts) == pytest.approx(whole.weights, rel=1e-9)
    residual = wanted - np.pad(seen, ((0, 0), (0, 1)), constant_values=1) @ whole.weights
    explained = 1 - (residual**2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum()
    assert whole.explained == pytest.approx(explained, abs=1e-6)


def test_a_linear_map_is_least_squares_with_one_penalty_for_all() -> None:
    generator = np.random.Generator(np.random.Philox(2))
    seen, wanted = (
        generator.normal(size=(2, 15, 4)) * [1, 2, 3, 4],
        generator.normal(size=(2, 15, 3)),
    )
    x, y = seen.reshape(30, 4), wanted.reshape(30, 3)
    root = np.sqrt(RIDGE * (x**2).sum() / 4)
    rows, zeros = np.vstack([x, root * np.eye(4)]), np.vstack([y, np.zeros((4, 3))])
    best = np.linalg.lstsq(rows, zeros, rcond=None)[0]
    assert linear_map(seen, wanted) == pytest.approx(best, rel=1e-9)
