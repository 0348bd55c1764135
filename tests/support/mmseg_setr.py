"""SETR as mmsegmentation's configs and papers describe it, in plain torch: a second reading.

Independent of fl_ppseg: it shares no module with it. Tensors have mmsegmentation's names, so that a
state dict of it is what a checkpoint holds. Read from its configs setr_naive, setr_pup and setr_mla
for ViT-L on Cityscapes and ADE20K: 24 layers, LayerNorm with epsilon 1e-6, GELU, attention with
biases, SyncBN in the heads, `align_corners=False` everywhere.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = {"naive": (9, 14, 19, 23), "pup": (9, 14, 19, 23), "mla": (5, 11, 17, 23)}
MAIN = {"naive": (1, 4, 1), "pup": (4, 2, 3)}
AUXILIARY = {
    "naive": (1, 4, 1),
    "naive-ade20k": (2, 4, 1),
    "pup": (2, 4, 3),
    "pup-base": (1, 4, 3),
}
"""Number of convolutions, upsampling, kernel."""
LARGE = {"width": 1024, "heads": 16, "patch": 16, "channels": 256}
SMALL = {"width": 128, "heads": 2, "patch": 4, "channels": 16}

Levels = Sequence[Tensor]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def enlarged(maps: Tensor, scale: int) -> Tensor:
    height, width = maps.shape[2:]
    return resize(maps, (height * scale, width * scale))


def layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6)


def normed(norm: nn.LayerNorm, maps: Tensor) -> Tensor:
    """LayerNorm over the channels of (B, C, h, w)."""
    return norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Conv(nn.Module):
    """mmcv's ConvModule with batch normalisation and ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outer)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(maps)))


class Attention(nn.Module):
    """mmcv's wrapper of torch's attention, which adds its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1))
        self.layers = nn.Sequential(first, nn.Linear(4 * width, width), nn.Dropout(0.1))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1 = layer_norm(width)
        self.attn = Attention(width, heads)
        self.ln2 = layer_norm(width)
        self.ffn = FeedForward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.ln1(tokens)
        tokens = tokens + self.attn.attn(inner, inner, inner, need_weights=False)[0]
        return tokens + self.ffn.layers(self.ln2(tokens))


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, stride=patch)


class Encoder(nn.Module):
    """The class token always has a position; `with_cls_token` says whether the layers see it."""

    def __init__(
        self,
        grid: tuple[int, int],
        taps: Sequence[int],
        *,
        width: int,
        heads: int,
        patch: int,
        with_cls_token: bool,
    ) -> None:
        super().__init__()
        self.grid, self.taps, self.with_cls_token = grid, taps, with_cls_token
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], width))
        self.patch_embed = PatchEmbed(width, patch)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(24))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Bilinear where the image has another grid (`interpolate_mode`)."""
        if grid == self.grid:
            return self.pos_embed
        maps = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        return torch.cat([self.pos_embed[:, :1], resize(maps, grid).flatten(2).mT], dim=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        patches = self.patch_embed.projection(images)
        grid = (patches.shape[2], patches.shape[3])
        tokens = torch.cat(
            [self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1
        )
        tokens = tokens + self.positions(grid)
        tokens = tokens if self.with_cls_token else tokens[:, 1:]
        levels = []
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if number in self.taps:
                kept = tokens[:, 1:] if self.with_cls_token else tokens
                levels.append(kept.mT.unflatten(2, grid))
        return levels


class UpHead(nn.Module):
    """SETRUPHead: norm, then convolution and upsampling in turn, then the classifier."""

    def __init__(
        self, width: int, channels: int, classes: int, index: int, sizes: tuple[int, int, int]
    ) -> None:
        super().__init__()
        number, self.scale, kernel = sizes
        self.index = index
        self.norm = layer_norm(width)
        self.up_convs = nn.ModuleList(
            nn.Sequential(Conv(width if not place else channels, channels, kernel))
            for place in range(number)
        )
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: Levels) -> Tensor:
        maps = normed(self.norm, levels[self.index])
        for conv in self.up_convs:
            maps = enlarged(conv(maps), self.scale)
        return self.conv_seg(maps)


class Aggregation(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.channel_proj = nn.ModuleList(Conv(width, channels, 1) for _ in range(4))
        self.feat_extract = nn.ModuleList(Conv(channels, channels, 3) for _ in range(4))


class Neck(nn.Module):
    """MLANeck: the levels, normed, added up from the deepest, which comes out first."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(layer_norm(width) for _ in range(4))
        self.mla = Aggregation(width, channels)

    def forward(self, levels: Levels) -> list[Tensor]:
        maps = [
            conv(normed(norm, level))
            for norm, conv, level in zip(self.norm, self.mla.channel_proj, levels, strict=True)
        ]
        results, total = [], torch.zeros(())
        for conv, each in zip(self.mla.feat_extract, reversed(maps), strict=True):
            total = total + each
            results.append(conv(total))
        return results


class MLAHead(nn.Module):
    """SETRMLAHead: two convolutions on each level, upsampled, all classified together."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        half = channels // 2
        self.up_convs = nn.ModuleList(
            nn.Sequential(Conv(channels, half, 3), Conv(half, half, 3)) for _ in range(4)
        )
        self.conv_seg = nn.Conv2d(4 * half, classes, 1)

    def forward(self, levels: Levels) -> Tensor:
        maps = [
            enlarged(convs(level), 4) for convs, level in zip(self.up_convs, levels, strict=True)
        ]
        return self.conv_seg(torch.cat(maps, dim=1))


class FCNHead(nn.Module):
    """FCNHead without convolutions: the classifier of one level."""

    def __init__(self, channels: int, classes: int, index: int) -> None:
        super().__init__()
        self.index = index
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: Levels) -> Tensor:
        return self.conv_seg(levels[self.index])


class Mmsegmentation(nn.Module):
    """Normalised RGB images (B, 3, H, W) -> scores of the main head and of each auxiliary one.

    Args:
        kind: A key of `AUXILIARY`, or `mla`.
        size: (height, width) that the position embedding is for.
        classes: Number of classes.
        sizes: Width, heads, patch and channels.
    """

    def __init__(
        self,
        kind: str,
        size: tuple[int, int],
        classes: int,
        sizes: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        width, heads, patch, channels = (sizes or SMALL).values()
        decoder = kind.partition("-")[0]
        has_neck = decoder == "mla"
        self.backbone = Encoder(
            (size[0] // patch, size[1] // patch),
            TAPS[decoder],
            width=width,
            heads=heads,
            patch=patch,
            with_cls_token=not has_neck,
        )
        if has_neck:
            self.neck = Neck(width, channels)
            self.decode_head: nn.Module = MLAHead(channels, classes)
            heads_beside = [FCNHead(channels, classes, index) for index in range(4)]
        else:
            self.decode_head = UpHead(width, channels, classes, 3, MAIN[decoder])
            heads_beside = [
                UpHead(width, channels, classes, index, AUXILIARY[kind]) for index in range(3)
            ]
        self.auxiliary_head = nn.ModuleList(heads_beside)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        levels = self.backbone(images)
        levels = self.neck(levels) if hasattr(self, "neck") else levels
        return self.decode_head(levels), [head(levels) for head in self.auxiliary_head]


@torch.no_grad()
def trained(kind: str, size: tuple[int, int], classes: int, seed: int) -> Mmsegmentation:
    """A small model in which every tensor, running statistics too, has values of its own."""
    torch.manual_seed(seed)
    model = Mmsegmentation(kind, size, classes).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "ln1.weight", "ln2.weight", "norm.weight", "bn.weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(80_000)
        else:
            tensor.add_(torch.randn_like(tensor) * 0.05)
    return model
