"""A SETR that mmsegmentation trained: its checkpoint read into a model of ours, equal in scores."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from torch import Tensor

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.backbone import Normalisation, fold_normalisation
from fl_ppseg.setr.exchange.mmseg_names import (
    AUXILIARY,
    CLASSIFIER,
    FIRST_CONV,
    FIRST_LATERAL,
    NECK,
    PATCHES,
    POSITION,
    layer_numbers,
    renamed,
)
from fl_ppseg.setr.exchange.pickled_tensors import State, read_tensors
from fl_ppseg.setr.model import HAS_CLASS_TOKEN
from fl_ppseg.setr.names import CLASS_TENSOR, EMBEDDING_TENSORS, POSITION_TENSOR
from fl_ppseg.setr.sizes import Shapes, tensor_shapes
from fl_ppseg.system.errors import InputError

IMAGENET: Final[Normalisation] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of RGB in [0, 1]: its configs for all data sets, 123.675, ... and 58.395, ... over 255."""
HEAD_WIDTH: Final = 64
"""Channels of an attention head of ViT-S, B and L; no tensor shows it."""
NUM_AUXILIARY: Final = {"naive": 3, "pup": 3, "mla": 4}
"""Auxiliary heads of its configs, on all taps (naive, PUP: but the last)."""


@dataclass(frozen=True)
class MmsegModel:
    """What a checkpoint of mmsegmentation holds, in our terms."""

    config: ModelConfig
    """Settings that build this model, without a source of weights."""
    num_classes: int
    """Channels of the scores."""
    image_size: tuple[int, int]
    """(height, width) of the crops that it was trained on, in pixels."""
    state: State
    """All tensors of the model of this size, fp32, for input in [-1, 1]."""

    @property
    def grid(self) -> tuple[int, int]:
        """(grid_h, grid_w) of its position embedding."""
        side = self.config.patch_size
        assert side is not None
        return self.image_size[0] // side, self.image_size[1] // side


def read_mmseg(
    path: Path,
    *,
    num_heads: int | None = None,
    image_size: tuple[int, int] | None = None,
    class_token: bool | None = None,
    auxiliary: bool = True,
    normalisation: Normalisation = IMAGENET,
) -> MmsegModel:
    """Read a checkpoint of mmsegmentation's SETR, naive, PUP or MLA, of its releases 0.x or 1.x.

    Its scores are those of mmsegmentation's model to 1e-5. What no tensor shows is as in its
    configs unless it is given.

    Args:
        path: The checkpoint, .pth; nothing but its tensors is made.
        num_heads: Attention heads; None: one for every 64 channels.
        image_size: (height, width) of the crops that it was trained on; None: squares.
        class_token: `with_cls_token` of its encoder; None: true for naive and PUP.
        auxiliary: Whether to keep the auxiliary heads, which serve training alone.
        normalisation: Mean and deviation of each channel that its images were brought to, of RGB
            in [0, 1]; they are folded into the patch embedding.

    Raises:
        InputError: It cannot be read, is no SETR of mmsegmentation, or lacks or has tensors that
            such a model has not.
    """
    theirs = read_tensors(path)
    if not auxiliary:
        theirs = {name: each for name, each in theirs.items() if not name.startswith(AUXILIARY)}
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.items()}
    _check_landmarks(shapes, path)
    config = _config(shapes, num_heads, class_token, path)
    size = _image_size(shapes, image_size, path)
    num_classes = shapes[CLASSIFIER][0]
    names = {name: renamed(name, config.decoder, config.num_auxiliary) for name in theirs}
    try:
        own = tensor_shapes(config, num_classes, size)
    except InputError as error:
        raise InputError(f"{path}: no SETR that is read here: {error}") from None
    _check_fit(shapes, names, own, config, path)
    state = {
        ours: theirs[name].float() if theirs[name].is_floating_point() else theirs[name]
        for name, ours in names.items()
        if ours is not None
    }
    if not config.class_token:
        state[POSITION_TENSOR] = state[POSITION_TENSOR][:, 1:]
        del state[CLASS_TENSOR]
    _fold(state, normalisation)
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    return MmsegModel(config, num_classes, size, contiguous)


def _check_landmarks(shapes: Shapes, path: Path) -> None:
    """Refuse what lacks the tensors that the settings are read from, or has them of other rank."""
    last = FIRST_LATERAL if _has_neck(shapes) else FIRST_CONV
    for name, rank in ((POSITION, 3), (PATCHES, 4), (CLASSIFIER, 4), (last, 4)):
        shape = shapes.get(name)
        if shape is None:
            raise InputError(f"{path}: no SETR of mmsegmentation: lacks {name}")
        if len(shape) != rank or not all(shape):
            raise InputError(f"{path}: no SETR of mmsegmentation: {name} is {shape}")


def _config(
    shapes: Shapes, num_heads: int | None, class_token: bool | None, path: Path
) -> ModelConfig:
    """The settings that a checkpoint's names and shapes show."""
    width, _, side, _ = shapes[PATCHES]
    decoder = _decoder(shapes)
    if num_heads is None and width % HEAD_WIDTH:
        raise InputError(
            f"{path}: its encoder is {width} channels wide, which are no heads of {HEAD_WIDTH}; "
            "give the number of heads"
        )
    up_convs = layer_numbers(shapes, r"decode_head\.up_convs\.(\d+)\.")
    extra_convs = layer_numbers(shapes, r"auxiliary_head\.0\.up_convs\.(\d+)\.")
    has_neck = decoder == "mla"
    fields = {
        "backbone": "vit",
        "patch_size": side,
        "embed_dim": width,
        "depth": layer_numbers(shapes, r"backbone\.layers\.(\d+)\."),
        "num_heads": width // HEAD_WIDTH if num_heads is None else num_heads,
        "decoder": decoder,
        "decoder_channels": shapes[FIRST_LATERAL if has_neck else FIRST_CONV][0],
        "num_convs": None if has_neck else up_convs,
        "num_auxiliary": _num_auxiliary(shapes, decoder, path),
        "auxiliary_convs": extra_convs or None,
        "class_token": HAS_CLASS_TOKEN[decoder] if class_token is None else class_token,
        "positions": "bilinear",
        "norm": "batch",
        "weights": None,
    }
    try:
        return ModelConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: no SETR that is read here: {key}: {first['msg']}") from None


def _has_neck(shapes: Shapes) -> bool:
    return any(name.startswith(NECK) for name in shapes)


def _decoder(shapes: Shapes) -> str:
    """MLA has a neck; naive's convolution has no width, PUP's are 3x3."""
    if _has_neck(shapes):
        return "mla"
    return "naive" if shapes[FIRST_CONV][2:] == (1, 1) else "pup"


def _num_auxiliary(shapes: Shapes, decoder: str, path: Path) -> int:
    """The number of auxiliary heads: none, or all of mmsegmentation's configs."""
    number = layer_numbers(shapes, r"auxiliary_head\.(\d+)\.")
    if not number and any(name.startswith(AUXILIARY) for name in shapes):
        number = 1  # a head that is no list
    if number not in (0, NUM_AUXILIARY[decoder]):
        raise InputError(
            f"{path}: {number} auxiliary heads, expected {NUM_AUXILIARY[decoder]} for decoder "
            f"{decoder!r} or none; leave them out, since they serve training alone"
        )
    return number


def _image_size(shapes: Shapes, image_size: tuple[int, int] | None, path: Path) -> tuple[int, int]:
    """The size of the crops that the position embedding is for: given, or a square."""
    number, side = shapes[POSITION][1] - 1, shapes[PATCHES][2]
    if image_size is None:
        root = math.isqrt(number) if number > 0 else 0
        image_size = (root * side, root * side)
    height, width = image_size
    if height % side or width % side or (height // side) * (width // side) != number:
        raise InputError(
            f"{path}: positions of {number} patches of {side}x{side} pixels, which is no image of "
            f"{height}x{width}; give the height and width that it was trained on"
        )
    return height, width


def _check_fit(
    shapes: Shapes,
    names: Mapping[str, str | None],
    own: Shapes,
    config: ModelConfig,
    path: Path,
) -> None:
    """Name the tensors that are unknown, missing or of another shape than the settings ask for."""
    expected = dict(own)
    if not config.class_token:  # mmsegmentation keeps the token that its encoder does not see
        batch, number, width = expected[POSITION_TENSOR]
        expected[POSITION_TENSOR] = (batch, number + 1, width)
        expected[CLASS_TENSOR] = (1, 1, width)
    found = {ours: shapes[name] for name, ours in names.items() if ours is not None}
    problems = [f"has an unknown {name!a}" for name, ours in names.items() if ours not in expected]
    problems += [f"lacks what becomes {name}" for name in expected if name not in found]
    problems += [
        f"{name!a} is {shapes[name]}, not {expected[ours]}"
        for name, ours in names.items()
        if ours is not None and ours in expected and shapes[name] != expected[ours]
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" * (len(problems) > 3)
        raise InputError(
            f"{path}: no SETR of mmsegmentation with decoder {config.decoder!r}: "
            f"{'; '.join(problems[:3])}{more}"
        )


def _fold(state: dict[str, Tensor], normalisation: Normalisation) -> None:
    """Move the normalisation of its images into the patch embedding."""
    weight, bias = EMBEDDING_TENSORS
    state[weight], state[bias] = fold_normalisation(state[weight], state[bias], *normalisation)
