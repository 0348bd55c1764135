"""The encoder: a plain ViT of timm, for images of one size, square or not."""

import difflib
from typing import Any

import timm
import torch
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fl_ppseg.system.errors import InputError

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of each channel, of pixel values in [0, 1]."""


def create_backbone(
    name: str,
    image_size: tuple[int, int],
    *,
    patch_size: int | None = None,
    embed_dim: int | None = None,
    depth: int | None = None,
    num_heads: int | None = None,
    pretrained: bool = False,
    class_token: bool = True,
    positions: str = "bicubic",
) -> VisionTransformer:
    """Build a ViT that maps (B, 3, H, W) float in [-1, 1] to tokens (B, prefix + N, D).

    It has no classifier, the patch embedding always has a bias, and published weights are converted
    to the input (2v - 255)/255.

    Args:
        name: `vit`, sized by the other arguments, or a timm ViT such as `vit_base_patch16_384`.
        image_size: (height, width) in pixels, multiples of the patch size.
        patch_size: Side of a patch in pixels; None keeps timm's.
        embed_dim: Width D, for `vit` only.
        depth: Number of layers, for `vit` only.
        num_heads: Attention heads, for `vit` only.
        pretrained: Load timm's published weights, resampled to this patch size and grid.
        class_token: Give `vit` a class token, or keep that of a timm ViT that has one.
        positions: Interpolation of published position embeddings to this grid: `bicubic` (timm's,
            with antialias) or `bilinear` (mmsegmentation's, without).

    Raises:
        InputError: The name is not a plain ViT, the sizes do not fit, or weights are unavailable.
    """
    if name == "vit":
        sizes = (patch_size, embed_dim, depth, num_heads)
        backbone = _sized_vit(image_size, *sizes, class_token, pretrained)
    else:
        backbone = _timm_vit(name, image_size, patch_size, pretrained)
        if pretrained and positions == "bilinear":
            _take_positions(backbone, _timm_vit(name, None, patch_size, pretrained), positions)
        if not class_token and backbone.num_prefix_tokens == 1 and backbone.cls_token is not None:
            _drop_class_token(backbone)
    _check_geometry(backbone, name, image_size)
    backbone.reset_classifier(0, "")
    backbone.fc_norm = nn.Identity()
    _ensure_bias(backbone.patch_embed.proj)
    if pretrained:
        fold_into_embedding(backbone.patch_embed.proj, *normalisation(backbone))
    return backbone


def normalisation(backbone: VisionTransformer) -> Normalisation:
    """Mean and deviation that a timm ViT's published weights were trained with (ours: 0.5)."""
    published = getattr(backbone, "pretrained_cfg", None) or {}
    half = (0.5, 0.5, 0.5)
    return tuple(published.get("mean", half)), tuple(published.get("std", half))


def fold_normalisation(
    weight: Tensor, bias: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Move an input normalisation into the patch embedding that follows it.

    With x = 2u - 1, u in [0, 1]: (u - mean)/std = x/(2 std) + (1 - 2 mean)/(2 std), so
    E' = E/(2 std) and b' = b + sum E (1 - 2 mean)/(2 std) give E'x + b' = E (u - mean)/std + b.
    Mean and deviation of 0.5 leave every bit unchanged.

    Args:
        weight: Embedding E, (D, 3, M, M).
        bias: Its bias, (D,).
        mean: Mean of each channel, of pixel values in [0, 1].
        std: Deviation of each channel, likewise.

    Returns:
        E' and b', for inputs in [-1, 1].
    """
    scale = 2 * torch.tensor(std, dtype=weight.dtype).view(1, -1, 1, 1)
    shift = 1 - 2 * torch.tensor(mean, dtype=weight.dtype).view(1, -1, 1, 1)
    folded = weight / scale
    return folded, bias + (folded * shift).sum(dim=(1, 2, 3))


@torch.no_grad()
def fold_into_embedding(
    projection: nn.Conv2d, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """`fold_normalisation` in place, on a patch embedding's convolution."""
    assert projection.bias is not None
    weight, bias = fold_normalisation(projection.weight, projection.bias, mean, std)
    projection.weight.copy_(weight)
    projection.bias.copy_(bias)


def resampled_positions(
    position: Tensor,
    old: tuple[int, int],
    new: tuple[int, int],
    num_prefix_tokens: int,
    positions: str,
) -> Tensor:
    """(1, prefix + N, D) position embedding of one grid -> (1, prefix + N', D) of another.

    Args:
        position: The embedding.
        old: Its grid.
        new: The new grid.
        num_prefix_tokens: Entries before those of the grid, which stay.
        positions: `bicubic` with antialias as timm does, or `bilinear` without as mmsegmentation.
    """
    resampled: Tensor = resample_abs_pos_embed(
        position.float(),
        list(new),
        list(old),
        num_prefix_tokens=num_prefix_tokens,
        interpolation=positions,
        antialias=positions == "bicubic",
    )
    return resampled


@torch.no_grad()
def _take_positions(backbone: VisionTransformer, native: VisionTransformer, positions: str) -> None:
    """Resample the position embedding of another grid into a backbone, if it has one."""
    if backbone.pos_embed is None or native.pos_embed is None:
        return
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    grids = native.patch_embed.grid_size, backbone.patch_embed.grid_size
    backbone.pos_embed.copy_(resampled_positions(native.pos_embed, *grids, prefix, positions))


def _drop_class_token(backbone: VisionTransformer) -> None:
    """Remove the class token from the encoder's input, and its entry from the position embedding.

    As mmsegmentation's `with_cls_token=False`, which adds positions and then drops the token.
    """
    if not backbone.no_embed_class and backbone.pos_embed is not None:
        backbone.pos_embed = nn.Parameter(backbone.pos_embed.detach()[:, 1:].clone())
    backbone.cls_token = None
    backbone.has_class_token = False
    backbone.num_prefix_tokens = 0


def _sized_vit(
    image_size: tuple[int, int],
    patch_size: int | None,
    embed_dim: int | None,
    depth: int | None,
    num_heads: int | None,
    class_token: bool,
    pretrained: bool,
) -> VisionTransformer:
    """A ViT of any size."""
    if pretrained:
        raise InputError(
            "model.pretrained: true, but model.backbone 'vit' has no published weights; "
            "use a timm ViT, or set model.weights to a local .safetensors file"
        )
    sizes = (patch_size, embed_dim, depth, num_heads)
    if patch_size is None or embed_dim is None or depth is None or num_heads is None:
        raise InputError(
            f"model.backbone 'vit' needs patch_size, embed_dim, depth and num_heads; got {sizes}"
        )
    if embed_dim % num_heads:
        raise InputError(
            f"model.embed_dim {embed_dim} is not a multiple of model.num_heads {num_heads}; "
            f"try {embed_dim // num_heads * num_heads or num_heads}"
        )
    return VisionTransformer(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        class_token=class_token,
        global_pool="",
        num_classes=0,
    )


def _timm_vit(
    name: str, image_size: tuple[int, int] | None, patch_size: int | None, pretrained: bool
) -> VisionTransformer:
    """A ViT of timm, which resamples weights to the patch size and the grid.

    Without image size it has the grid that its weights were published for.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models("*vit*"), n=3)
        raise InputError(
            f"model.backbone {name!r} is unknown to timm; use 'vit' or a timm ViT"
            + (f", e.g. {', '.join(near)}" if near else "")
        )
    if pretrained and not timm.is_model_pretrained(name):
        raise InputError(
            f"timm has no weights for model.backbone {name!r}; set model.weights to a local "
            ".safetensors file, or train from scratch with model.pretrained: false"
        )
    sizes: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
    if patch_size is not None:
        sizes["patch_size"] = patch_size
    try:
        backbone = timm.create_model(name, pretrained=pretrained, **sizes)
    except TypeError as error:  # models without these arguments are not ViTs
        raise _not_a_vit(name) from error
    except OSError as error:  # errors of downloads, caches and a missing network
        raise InputError(
            f"cannot download timm's weights for model.backbone {name!r} "
            f"({type(error).__name__}); set model.weights to a local .safetensors file of them, "
            "or train from scratch with model.pretrained: false"
        ) from error
    except RuntimeError as error:  # an unknown tag after the dot; weights that do not fit
        reason = str(error).partition("\n")[0].rstrip(".: ")
        raise InputError(
            f"timm cannot build model.backbone {name!r}: {reason}; `timm.list_models('vit*', "
            "pretrained=True)` lists its names"
        ) from error
    if not isinstance(backbone, VisionTransformer):
        raise _not_a_vit(name)
    if not isinstance(backbone.patch_embed, PatchEmbed):  # a hybrid with a convolutional stem
        raise _not_a_vit(name)
    return backbone


def _check_geometry(backbone: VisionTransformer, name: str, image_size: tuple[int, int]) -> None:
    """Refuse patches that are not square, and images that are not whole patches."""
    side, other_side = backbone.patch_embed.patch_size
    if side != other_side:
        raise InputError(
            f"model.backbone {name!r} has {side}x{other_side} patches; expected squares"
        )
    height, width = image_size
    if height < side or width < side or height % side or width % side:
        raise InputError(
            f"images of {height}x{width} pixels are not made of {side}x{side} patches; choose "
            "an image size that is a multiple of the patch size"
        )


def _not_a_vit(name: str) -> InputError:
    return InputError(
        f"model.backbone {name!r} is not a plain vision transformer; use 'vit' or a timm ViT, "
        "e.g. vit_base_patch16_384"
    )


def _ensure_bias(projection: nn.Conv2d) -> None:
    """Give a patch embedding without bias (CLIP's) one of zeros: normalisation folds into it."""
    if projection.bias is None:
        projection.bias = nn.Parameter(projection.weight.new_zeros(projection.out_channels))
