"""ONNX files in onnxruntime against PyTorch."""

import builtins
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from small_setr import IMAGE_SIZE, tiny
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppseg.data.pixels import to_input
from fl_ppseg.setr.canonical import FORMS, canonical
from fl_ppseg.setr.exchange import onnx_export
from fl_ppseg.setr.exchange.onnx_export import export_onnx
from fl_ppseg.setr.model import SETR
from fl_ppseg.system.errors import InputError, RunError

TOLERANCE = 1e-5
"""Of the largest score; the exporter itself takes ten times as much."""


def photographs(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, *IMAGE_SIZE), dtype=torch.uint8, generator=generator)


def loud(model: SETR) -> SETR:
    """Scores of about 1, and running statistics that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "classifier.conv.weight")):
                tensor.normal_(std=0.5, generator=generator)
            elif name.startswith("pixel_head.") and not tensor.any():  # begins as zero
                tensor.normal_(std=0.1, generator=generator)
    return model


def scored(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


CASES: list[dict[str, Any]] = [
    {"invariant": None},
    {"invariant": "values", "decoder": "mla", "num_auxiliary": 2},
    {"invariant": "magnitudes", "class_token": True},
    {"invariant": "pixels", "decoder": "naive"},
    {"invariant": "pixel-magnitudes", "norm": "batch"},
    {"invariant": "pixels", "pixel_head": True},
    {"invariant": "pixel-magnitudes", "pixel_head": True, "decoder": "naive"},
    {"invariant": None, "pixel_head": True},
]


@pytest.mark.parametrize("fields", CASES, ids=str)
def test_scores_and_labels_are_pytorchs(fields: dict[str, Any], tmp_path: Path) -> None:
    model = loud(tiny(**fields))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    path = tmp_path / "new" / "model.onnx"
    assert export_onnx(model, path, {"classes": "road, sky"}) < TOLERANCE
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [each.name for each in path.parent.iterdir()] == ["model.onnx"]
    for batch in (1, 4):
        images = photographs(batch)
        found = scored(path, images)
        with torch.no_grad():
            wanted = F.interpolate(model(to_input(images)).main, IMAGE_SIZE, mode="bilinear")
        assert found.shape == wanted.shape == (batch, 19, *IMAGE_SIZE)
        assert wanted.abs().max() > 0.5
        assert (found - wanted).abs().max() < TOLERANCE * wanted.abs().max()
        assert (found.argmax(1) == wanted.argmax(1)).float().mean() > 0.999
    file = onnx.load(path)
    onnx.checker.check_model(file)
    assert {each.key: each.value for each in file.metadata_props}["classes"] == "road, sky"


@pytest.mark.parametrize("form", FORMS)
def test_the_sort_is_exported_to_the_bit(form: str, tmp_path: Path) -> None:
    """The sorted half of the canonical form; its gaps are roots, of which the last bit differs."""

    class Sorted(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return canonical((images.float() * 2 - 255) / 255, form, 8)

    images = photographs(2)
    program = torch.onnx.export(
        Sorted().eval(), (images,), input_names=["images"], output_names=["logits"], verbose=False
    )
    assert program is not None
    program.save(tmp_path / "sort.onnx")
    found, wanted = scored(tmp_path / "sort.onnx", images), Sorted()(images)
    assert torch.equal(found[:, :3], wanted[:, :3])
    torch.testing.assert_close(found[:, 3:], wanted[:, 3:], rtol=0, atol=5e-7)


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(RunError, match="the file was not written") as raised:
        export_onnx(tiny(), path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def lacking(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(InputError, match=r"need onnxscript.*pip install 'fl-ppseg\[onnx\]'"):
        export_onnx(tiny(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_beyond_the_formats_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1_000)
    with pytest.raises(InputError, match="GiB of weights"):
        export_onnx(tiny(), tmp_path / "model.onnx")
