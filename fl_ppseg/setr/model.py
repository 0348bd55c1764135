"""SETR: encoder, decoder and auxiliary heads, built from section `model` of the config."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from timm.layers.attention import Attention
from timm.layers.norm import LayerNorm2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fl_ppseg.setr.backbone import create_backbone
from fl_ppseg.setr.canonical import InvariantPatchEmbed
from fl_ppseg.setr.decoders import Levels, LinearHead, MLAHead, MLANeck, UpHead
from fl_ppseg.setr.pixel_head import PLACED, WHOLE_PIXELS, PixelHead, flattened, resized
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    from fl_ppseg.config.sections import ModelConfig


class UpSizes(NamedTuple):
    """The three integers in which naive and PUP differ."""

    num_convs: int
    """Number of convolutions."""
    up_scale: int
    """Upsampling after each."""
    kernel_size: int
    """Side of their kernels."""


UP_HEADS: Final = {"naive": UpSizes(1, 4, 1), "pup": UpSizes(4, 2, 3)}
"""Main heads of mmsegmentation's setr_naive and setr_pup."""

AUXILIARY_UP_HEADS: Final = {"naive": UpSizes(1, 4, 1), "pup": UpSizes(2, 4, 3)}
"""Their auxiliary heads, as in its configs for Cityscapes. `model.auxiliary_convs` gives another
number of convolutions: its naive for ADE20K has two, its base config of setr_pup one."""

HAS_CLASS_TOKEN: Final = {"naive": True, "pup": True, "mla": False}
"""Whether mmsegmentation's encoder sees a class token (`with_cls_token`)."""

MLA_HEAD: Final = {"num_convs": 2, "up_scale": 4}
"""Convolutions on each level and upsampling of mmsegmentation's setr_mla."""

TAPS_OF_24: Final = {"naive": (9, 14, 19, 23), "pup": (9, 14, 19, 23), "mla": (5, 11, 17, 23)}
"""Layers of a ViT-L that the heads read, from 0; naive and PUP's main heads read only the last."""


class Logits(NamedTuple):
    """Scores at each head's own resolution; callers resize them."""

    main: Tensor
    """(B, num_classes, h, w); with a pixel head (B, num_classes, H, W)."""
    auxiliary: tuple[Tensor, ...]
    """One (B, num_classes, h, w) for each auxiliary head."""
    decoder: Tensor | None = None
    """(B, num_classes, h, w), where the other scores are of the pixels of a ciphertext, (B,
    num_classes, H, W): the decoder's own, as far as it can tell from tokens where in a block
    something is. Not for a loss: whoever has labels in both orders can tell the order."""


class SETR(nn.Module):
    """(B, 3, H, W) float in [-1, 1] -> `Logits`.

    Each tapped layer has a LayerNorm of its own (mmsegmentation keeps them inside its heads and
    neck). The encoder's final norm has no other use here: it becomes that of the last tap.

    The patch embedding may be replaced: `model.backbone.patch_embed` is any module that maps
    (B, 3, H, W) to (B, grid_h * grid_w, D).

    Args:
        backbone: A ViT of timm; modified: its final norm moves to `norms`.
        decoder: Main head, levels -> scores.
        auxiliary: Auxiliary heads, levels -> scores.
        taps: Layers whose outputs are the levels, ascending, the last one last.
        neck: Levels -> levels, before the heads.
        pixel_head: Scores of each pixel, added to the decoder's; of ciphertexts, which an invariant
            embedding reads, to the mean of these over each block.
    """

    def __init__(
        self,
        backbone: VisionTransformer,
        decoder: nn.Module,
        auxiliary: Iterable[nn.Module] = (),
        *,
        taps: tuple[int, ...],
        neck: nn.Module | None = None,
        pixel_head: PixelHead | None = None,
    ) -> None:
        super().__init__()
        self.taps = taps
        self.grid: tuple[int, int] = backbone.patch_embed.grid_size
        self.positions = "bicubic"
        """Interpolation of position embeddings of another grid when they are loaded."""
        self.patch_size: int = backbone.patch_embed.patch_size[0]
        """Side of a patch in pixels: the block size of every cipher this model reads."""
        self.backbone = backbone
        self.norms = nn.ModuleList(LayerNorm2d(backbone.embed_dim, eps=1e-6) for _ in taps)
        # strict=False: a few timm models have no final norm, and the last tap's starts afresh
        self.norms[-1].load_state_dict(backbone.norm.state_dict(), strict=False)
        backbone.norm = nn.Identity()
        self.neck = nn.Identity() if neck is None else neck
        self.decoder = decoder
        self.auxiliary = nn.ModuleList(auxiliary)
        self.pixel_head = pixel_head

    @property
    def scores_ciphertexts(self) -> bool:
        """Whether it scores the pixels of a ciphertext, in whatever order they are."""
        is_invariant = isinstance(self.backbone.patch_embed, InvariantPatchEmbed)
        return self.pixel_head is not None and is_invariant

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Let training keep the input of each layer alone, and compute the layer again for its
        gradients (Chen et al. 2016, arXiv:1604.06174): the same bits in less memory, more slowly.
        """
        self.backbone.set_grad_checkpointing(enable)

    def set_fused_attention(self, enable: bool) -> None:
        """Let attention be computed block by block in one kernel, or as two products of matrices
        and a softmax between: the same numbers but for rounding.
        """
        for module in self.backbone.modules():
            if isinstance(module, Attention):
                setattr(module, "fused_attn", enable)  # noqa: B010  # final to TorchScript alone

    def features(self, images: Tensor) -> Levels:
        """(B, 3, H, W) -> outputs of the tapped layers, (B, D, grid_h, grid_w) each.

        Without class token and norm; the memory layout is channels-last.
        """
        tokens = self.backbone.forward_intermediates(
            images,
            indices=list(self.taps),
            output_fmt="NLC",
            stop_early=True,
            intermediates_only=True,
        )
        levels = cast(list[Tensor], tokens)
        # NLC -> NHWC -> NCHW
        return tuple(x.reshape(x.shape[0], *self.grid, -1).permute(0, 3, 1, 2) for x in levels)

    def forward(self, images: Tensor) -> Logits:
        """Score every position of an image, at each head's own resolution."""
        features = zip(self.norms, self.features(images), strict=True)
        own = tuple(norm(feature) for norm, feature in features)
        levels = self.neck(own)
        main, auxiliary = self.decoder(levels), tuple(head(levels) for head in self.auxiliary)
        if self.pixel_head is None:
            return Logits(main, auxiliary)
        size, pixels = (images.shape[-2], images.shape[-1]), self.pixel_head(images, own[-1])
        if not self.scores_ciphertexts:  # but plain images, whose pixels are in place
            return Logits(resized(main, size) + pixels, auxiliary)
        alike, *others = (flattened(each, self.patch_size, size) for each in (main, *auxiliary))
        return Logits(alike + pixels, tuple(others), main)


def scaled_taps(decoder: str, depth: int) -> tuple[int, ...]:
    """mmsegmentation's four taps for 24 layers, in proportion for `depth` layers.

    >>> scaled_taps("pup", 12), scaled_taps("mla", 12)
    ((4, 7, 9, 11), (2, 5, 8, 11))
    """
    return tuple(((tap + 1) * depth * 2 + 24) // 48 - 1 for tap in TAPS_OF_24[decoder])


def assemble(config: "ModelConfig", num_classes: int, image_size: tuple[int, int]) -> SETR:
    """Build the model that a config describes, without a bound on its size or a seed.

    `fl_ppseg.setr.build` bounds the size first and draws from a seed.
    """
    backbone = create_backbone(
        config.backbone,
        image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        pretrained=config.pretrained,
        class_token=_has_class_token(config),
        positions=config.positions,
    )
    if config.invariant is not None:
        backbone.patch_embed = InvariantPatchEmbed(backbone.patch_embed, config.invariant)
    taps = _taps(config.decoder, len(backbone.blocks), config.num_auxiliary)
    build = _build_mla if config.decoder == "mla" else _build_up
    model = build(config, num_classes, backbone, taps)
    model.positions = config.positions
    if config.pixel_head:
        model.pixel_head = _pixel_head(config, num_classes, model)
    return model


def _pixel_head(config: "ModelConfig", num_classes: int, model: SETR) -> PixelHead:
    """The head for what an embedding reads, if pixels are whole in that."""
    form = config.invariant or PLACED
    if form not in WHOLE_PIXELS:
        raise InputError(
            f"model.pixel_head: expected model.invariant {' or '.join(WHOLE_PIXELS)}, or none for "
            f"plain images, got {form}, in which no pixel is whole; leave one of them out"
        )
    return PixelHead(model.backbone.embed_dim, num_classes, form, model.patch_size)


def _has_class_token(config: "ModelConfig") -> bool:
    """`class_token` of the config; else none for `vit`, mmsegmentation's for a timm ViT."""
    if config.class_token is not None:
        return config.class_token
    return config.backbone != "vit" and HAS_CLASS_TOKEN[config.decoder]


def _build_up(
    config: "ModelConfig", num_classes: int, backbone: VisionTransformer, taps: tuple[int, ...]
) -> SETR:
    """Naive or PUP, with an auxiliary head on each tap but the last."""
    head = partial(
        UpHead,
        backbone.embed_dim,
        num_classes,
        channels=config.decoder_channels,
        norm=config.norm,
        dropout=config.dropout,
    )
    main = UP_HEADS[config.decoder]._replace(**_given(config))
    extra = auxiliary_sizes(config)
    decoder = head(level=-1, **main._asdict())
    auxiliary = [head(level=level, **extra._asdict()) for level in range(config.num_auxiliary)]
    return SETR(backbone, decoder, auxiliary, taps=taps)


def _build_mla(
    config: "ModelConfig", num_classes: int, backbone: VisionTransformer, taps: tuple[int, ...]
) -> SETR:
    """MLA: the neck has `decoder_channels`, the head half of them on each level."""
    channels = config.decoder_channels
    neck = MLANeck(backbone.embed_dim, channels, len(taps), config.norm)
    decoder = MLAHead(
        channels,
        num_classes,
        num_levels=len(taps),
        channels=channels // 2,
        norm=config.norm,
        dropout=config.dropout,
        **(MLA_HEAD | _given(config)),
    )
    auxiliary = [
        LinearHead(channels, num_classes, level=level, dropout=config.dropout)
        for level in range(config.num_auxiliary)
    ]
    return SETR(backbone, decoder, auxiliary, taps=taps, neck=neck)


def auxiliary_sizes(config: "ModelConfig") -> UpSizes:
    """The integers of the auxiliary heads of naive or PUP."""
    sizes = AUXILIARY_UP_HEADS[config.decoder]
    return sizes._replace(num_convs=config.auxiliary_convs or sizes.num_convs)


def _given(config: "ModelConfig") -> dict[str, int]:
    """The integers that the config sets in place of mmsegmentation's defaults."""
    integers = {"num_convs": config.num_convs, "up_scale": config.up_scale}
    return {name: value for name, value in integers.items() if value is not None}


def _taps(decoder: str, depth: int, num_auxiliary: int) -> tuple[int, ...]:
    """The layers to read: all four for MLA, else the deepest `num_auxiliary` and the last."""
    most = 4 if decoder == "mla" else 3
    if num_auxiliary > most:
        raise InputError(
            f"model.num_auxiliary {num_auxiliary}: decoder {decoder!r} has at most {most} "
            "auxiliary heads"
        )
    num_taps = 4 if decoder == "mla" else num_auxiliary + 1
    taps = scaled_taps(decoder, depth)[-num_taps:]
    if taps[0] < 0 or len(set(taps)) < num_taps:
        raise InputError(
            f"a backbone of {depth} layers is too shallow: decoder {decoder!r} with "
            f"model.num_auxiliary {num_auxiliary} reads {num_taps} different layers; use a deeper "
            "backbone or another decoder"
        )
    return taps
