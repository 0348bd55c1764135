"""SETR as an ONNX file: bytes of images in, scores of every pixel out.

The whole model goes into it, the sort of an invariant embedding too, so that the file takes
ciphertexts as a service gets them. Each file is checked in onnxruntime before it takes its place.
"""

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fl_ppseg.setr.model import SETR
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.files import make_folders, replacing

INPUT: Final = "images"
OUTPUT: Final = "logits"
TOLERANCE: Final = 1e-4
"""Largest difference from PyTorch's scores, as a part of the largest score; measured: 1.3e-6, of an
untrained ViT-L at 768x768 4.3e-5."""
MAX_BYTES: Final = 3 * 2**29
"""Of weights: beyond it PyTorch writes them to a second file (ONNX's own limit is 2 GiB)."""
PROBES: Final = 3
"""Images of the check, and of a batch: another number than the exported one."""


def export_onnx(model: SETR, path: Path, metadata: Mapping[str, str] | None = None) -> float:
    """Write a model as an ONNX file, whole or not at all, and check it in onnxruntime.

    Its input `images` is (B, 3, H, W) uint8 RGB, plain or encrypted, of any number B and of the
    size that the model is built for; its output `logits` is (B, num_classes, H, W) float32, the
    main head's scores, bilinearly brought to the size of the images. Those of a model with a pixel
    head for ciphertexts are in the order of the ciphertext, without the decoder's own.

    Args:
        model: The model; it stays as it is. Auxiliary heads are left out.
        path: The file; one already there is replaced.
        metadata: What the file says of itself, e.g. its classes and cipher.

    Returns:
        The largest difference between scores of onnxruntime and of PyTorch on random images, as a
        part of the largest score; at most `TOLERANCE`.

    Raises:
        InputError: The extra `onnx` is not installed, or the model is larger than `MAX_BYTES`.
        RunError: onnxruntime computes other scores.
    """
    _check_installed()
    _check_size(model)
    on_bytes = OnBytes(copy.deepcopy(model).to("cpu", torch.float32)).eval()
    size = tuple(side * model.patch_size for side in model.grid)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randint(0, 256, (PROBES, 3, *size), dtype=torch.uint8, generator=generator)
    program = _exported(on_bytes, probes[:2])
    program.model.metadata_props.update(metadata or {})
    make_folders(path.parent)
    with replacing(path) as temporary:
        program.save(temporary)
        difference = _difference(temporary, on_bytes, probes)
        if not difference <= TOLERANCE:
            raise RunError(
                f"{path}: onnxruntime's scores differ from PyTorch's by {difference:.1e} of the "
                f"largest, at most {TOLERANCE:.0e} is taken; the file was not written"
            )
    return difference


class OnBytes(nn.Module):
    """(B, 3, H, W) uint8 -> (B, num_classes, H, W) float32, a SETR's main scores of each pixel.

    Args:
        model: The SETR; its auxiliary heads are removed.
    """

    def __init__(self, model: SETR) -> None:
        super().__init__()
        self.model = model
        model.auxiliary = nn.ModuleList()

    def forward(self, images: Tensor) -> Tensor:
        """Scale bytes as `fl_ppseg.data.pixels` does, score them, enlarge the scores."""
        scores = self.model((images.float() * 2 - 255) / 255).main
        return functional.interpolate(
            scores, images.shape[-2:], mode="bilinear", align_corners=False
        )


def _check_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ONNX files need {error.name}, which is not installed: pip install 'fl-ppseg[onnx]'"
        ) from None


def _check_size(model: SETR) -> None:
    number = sum(tensor.numel() * 4 for tensor in model.state_dict().values())
    if number > MAX_BYTES:
        raise InputError(
            f"{number / 2**30:.1f} GiB of weights; an ONNX file takes {MAX_BYTES / 2**30:.1f} at "
            "most: choose a smaller model"
        )


def _exported(module: OnBytes, images: Tensor) -> Any:
    """PyTorch's ONNX program of a module, for batches of any number."""
    with warnings.catch_warnings(action="ignore"):  # of the exporter about its own inside
        return torch.onnx.export(
            module,
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )


@torch.no_grad()
def _difference(path: Path, module: OnBytes, images: Tensor) -> float:
    """Largest difference of the scores of the file and of the module, by the largest score."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
    expected = module(images)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
