"""Weights of SETR in .safetensors files: written atomically, read strictly."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

import safetensors
import safetensors.torch
import torch
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor

from fl_ppseg.setr.backbone import fold_normalisation, normalisation, resampled_positions
from fl_ppseg.setr.canonical import InvariantPatchEmbed
from fl_ppseg.setr.model import SETR
from fl_ppseg.setr.names import (
    BACKBONE_PREFIX,
    CLASS_TENSOR,
    EMBEDDING_TENSORS,
    PIXEL_HEAD_PREFIX,
    POSITION_TENSOR,
)
from fl_ppseg.setr.sizes import MAX_PARAMETERS, Shapes
from fl_ppseg.setr.tensor_file import Header, read_header
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

logger = logging.getLogger(__name__)

State = dict[str, Tensor]

DTYPES: Final = {"fp16": torch.float16, "fp32": torch.float32}
CLASSIFIER_SUFFIXES: Final = (
    ".classifier.conv.weight", ".classifier.conv.bias",
    "pixel_head.classifier.weight", "pixel_head.classifier.bias",
    "pixel_head.query.weight", "pixel_head.query.bias",
)  # fmt: skip
TIMM_HEADS: Final = ("head.", "head_dist.", "fc_norm.", "attn_pool.")
"""Tensors of a timm classifier that a segmenter does not have."""


def save_weights(
    weights: SETR | Mapping[str, Tensor],
    path: Path,
    *,
    dtype: Literal["fp16", "fp32"] = "fp32",
    grid: tuple[int, int] | None = None,
    form: str | None = None,
) -> None:
    """Write a .safetensors file, whole or not at all.

    Args:
        weights: A model, or its state dict.
        path: Target; a file already there is replaced.
        dtype: Of the floating-point tensors in the file.
        grid: (grid_h, grid_w) of the position embedding, where `weights` is a state dict; a
            reader with another grid needs it. A model brings its own.
        form: Canonical form that the embedding reads, likewise; None: images as they are.
    """
    state: Mapping[str, Tensor] = weights.state_dict() if isinstance(weights, SETR) else weights
    if isinstance(weights, SETR):
        grid, form = weights.grid, _form(weights)
    # One entry at most: safetensors writes several in random order; equal weights make equal files.
    metadata = None if grid is None else {"grid": "/".join([f"{grid[0]}x{grid[1]}", *_named(form)])}
    tensors = {name: _stored(tensor, DTYPES[dtype]) for name, tensor in state.items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_weights(model: SETR, path: Path) -> None:
    """Read a .safetensors file, fp16 or fp32, into a model.

    Accepted and logged: classifiers for another number of classes (these start from scratch); no
    pixel head where the model has one (it starts as zero); a file of timm's own, names without
    `backbone.` (backbone only, with its patch embedding resampled and its normalisation folded in);
    a position embedding for another grid (resampled by timm); a linear patch embedding where the
    model's is invariant (it starts from scratch). Anything else that does not fit is an error.

    Raises:
        InputError: The file cannot be read, or its tensors do not fit the model.
    """
    state, grid, form = _read(path, model)
    fit_weights(model, state, path, grid, form)


def fit_weights(
    model: SETR, state: State, path: Path, grid: tuple[int, int] | None, form: str | None
) -> None:
    """Load tensors into a model, as `load_weights` does with those of a file.

    Args:
        model: The model.
        state: The tensors by name.
        path: Where they come from, as an error names it.
        grid: (grid_h, grid_w) of their position embedding, if known.
        form: Canonical form that their embedding reads, if known.

    Raises:
        InputError: They do not fit the model.
    """
    if form is not None and form != _form(model):
        raise InputError(
            f"{path}: its embedding reads {form}, the model's {_form(model) or 'images'}; "
            "choose another file, or model.weights null to start from scratch"
        )
    fresh: set[str] = set()
    if not any(name.startswith(BACKBONE_PREFIX) for name in state):
        state, grid = _from_timm(state, model)
        fresh = {name for name in model.state_dict() if not name.startswith(BACKBONE_PREFIX)}
        fresh -= state.keys()
    fresh |= _lacking_pixel_head(state, model)
    state = _with_grid(state, model, grid)
    classifiers, embedding = _other_classes(state, model), _other_embedding(state, model)
    others = classifiers | embedding
    state = {name: tensor for name, tensor in state.items() if name not in others}
    _check_fit(state, model, fresh | others, path)
    model.load_state_dict(state, strict=False)
    if fresh and not all(name.startswith(PIXEL_HEAD_PREFIX) for name in fresh):
        logger.info("%s holds a timm backbone: decoder and heads start from scratch", path)
    if classifiers:
        logger.info("%s is for other classes: the classifiers start from scratch", path)
    if embedding:
        logger.info("%s is for plain images: the invariant embedding starts from scratch", path)


def _form(model: SETR) -> str | None:
    """The canonical form that a model's embedding reads."""
    embedding = model.backbone.patch_embed
    return embedding.form if isinstance(embedding, InvariantPatchEmbed) else None


def _named(form: str | None) -> list[str]:
    return [] if form is None else [form]


def check_weights_file(path: Path) -> Header:
    """Check the header of a weights file; none of its tensors is read.

    Raises:
        InputError: It is not a .safetensors file, or larger than `MAX_PARAMETERS`.
    """
    try:
        header = read_header(path)
    except InputError as error:
        raise InputError(
            f"cannot read weights: {error}; model.weights must be a .safetensors file"
        ) from None
    if header.num_elements > MAX_PARAMETERS:
        raise InputError(
            f"cannot read weights: {path}: {header.num_elements / 1e6:,.0f} million numbers, at "
            f"most {MAX_PARAMETERS / 1e6:,.0f} million are read"
        )
    return header


def _read(path: Path, model: SETR) -> tuple[State, tuple[int, int] | None, str | None]:
    """Tensors of a file; grid and canonical form of its embedding, if the file has them.

    Tensors of shapes that cannot fit the model are refused before they are read.
    """
    header = check_weights_file(path)
    _check_shapes(header.shapes, model, path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in header.shapes}
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"cannot read weights from {path} ({error}); model.weights must be a .safetensors file"
        ) from error
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})(?:/([\w-]+))?", header.metadata.get("grid", ""))
    return (state, (int(found[1]), int(found[2])), found[3]) if found else (state, None, None)


def _check_shapes(shapes: Shapes, model: SETR, path: Path) -> None:
    """Refuse, by the header alone, tensors that cannot fit the model."""
    if not any(name.startswith(BACKBONE_PREFIX) for name in shapes):
        return  # timm's own: resampled first
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    differing = {*EMBEDDING_TENSORS, POSITION_TENSOR}
    fixed = {
        name: shape
        for name, shape in shapes.items()
        if name not in differing and not name.endswith(CLASSIFIER_SUFFIXES)
    }
    expected = {
        name: shape
        for name, shape in own.items()
        if name not in differing and not name.endswith(CLASSIFIER_SUFFIXES)
    }
    _refuse_misfits(fixed, expected, _lacking_pixel_head(shapes, model), path)


def _lacking_pixel_head(given: Iterable[str], model: SETR) -> set[str]:
    """The tensors of a model's pixel head, if a file has none: it starts from scratch, as zero."""
    if any(name.startswith(PIXEL_HEAD_PREFIX) for name in given):
        return set()
    return {name for name in model.state_dict() if name.startswith(PIXEL_HEAD_PREFIX)}


def _from_timm(state: State, model: SETR) -> tuple[State, tuple[int, int] | None]:
    """Rename a timm ViT's tensors to SETR's and convert them to our input; keep timm's grid."""
    last_norm = f"norms.{len(model.norms) - 1}."
    renamed = {
        last_norm + name.removeprefix("norm.")
        if name.startswith("norm.")
        else BACKBONE_PREFIX + name: tensor.float()
        for name, tensor in state.items()
        if not name.startswith(TIMM_HEADS)
    }
    weight_name, bias_name = EMBEDDING_TENSORS
    weight = renamed.get(weight_name)
    if weight is None or weight.ndim != 4:
        return renamed, None
    published = getattr(model.backbone, "pretrained_cfg", None) or {}
    _, height, width = published.get("input_size", (3, 0, 0))
    grid = (height // weight.shape[2], width // weight.shape[3])
    weight = resample_patch_embed(weight, [model.patch_size] * 2)
    bias = renamed.get(bias_name, weight.new_zeros(len(weight)))
    if model.backbone.cls_token is None:
        _drop_class_token(renamed, has_own_entry=not model.backbone.no_embed_class)
    mean_and_std = normalisation(model.backbone)
    renamed[weight_name], renamed[bias_name] = fold_normalisation(weight, bias, *mean_and_std)
    return renamed, grid


def _drop_class_token(state: State, has_own_entry: bool) -> None:
    """Remove a class token, and its entry of the position embedding, from a file's tensors."""
    is_there = state.pop(CLASS_TENSOR, None) is not None
    if is_there and has_own_entry and POSITION_TENSOR in state:
        state[POSITION_TENSOR] = state[POSITION_TENSOR][:, 1:]


def _with_grid(state: State, model: SETR, grid: tuple[int, int] | None) -> State:
    """Resample the position embedding from its own grid to the model's, if both are known."""
    position = state.get(POSITION_TENSOR)
    if position is None or grid is None or grid == model.grid:
        return state
    prefix = 0 if model.backbone.no_embed_class else model.backbone.num_prefix_tokens
    if position.shape[1] != grid[0] * grid[1] + prefix:
        return state
    logger.info("position embedding resampled from grid %s to %s", grid, model.grid)
    resampled = resampled_positions(position, grid, model.grid, prefix, model.positions)
    return state | {POSITION_TENSOR: resampled}


def _other_classes(state: State, model: SETR) -> set[str]:
    """Classifier tensors that differ from the model's in the number of classes alone."""
    own = model.state_dict()
    return {
        name
        for name in own.keys() & state.keys()
        if name.endswith(CLASSIFIER_SUFFIXES)
        and own[name].shape[0] != state[name].shape[0]
        and own[name].shape[1:] == state[name].shape[1:]
    }


def _other_embedding(state: State, model: SETR) -> set[str]:
    """The tensors of a linear patch embedding in a file, if the model's is an invariant one."""
    weight = state.get(EMBEDDING_TENSORS[0])
    if not isinstance(model.backbone.patch_embed, InvariantPatchEmbed) or weight is None:
        return set()
    own = model.backbone.patch_embed.proj.weight
    is_linear = weight.shape[1] == own.shape[1] // 2 and weight.shape[2:] == own.shape[2:]
    return set(EMBEDDING_TENSORS) if is_linear and len(weight) == len(own) else set()


def _check_fit(state: State, model: SETR, fresh: set[str], path: Path) -> None:
    """Name the tensors that are missing, unknown or of another shape."""
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _refuse_misfits(given, own, fresh, path)


def _refuse_misfits(given: Shapes, own: Shapes, fresh: set[str], path: Path) -> None:
    problems = [f"lacks {name}" for name in own if name not in given and name not in fresh]
    problems += [f"has an unknown {name}" for name in given if name not in own]
    problems += [
        f"{name} is {given[name]}, not {own[name]}"
        for name in own
        if name in given and given[name] != own[name]
    ]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" * (len(problems) > 3))
        raise InputError(
            f"weights {path} do not fit the model: {shown}; choose the model settings that the "
            "file was made with, another file, or model.weights null to start from scratch"
        )


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as the file holds it: on the CPU, contiguous, counters left as they are."""
    target = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", target).contiguous().clone()
