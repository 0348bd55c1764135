"""Names of mmsegmentation's SETR and what the shapes of its tensors say.

    backbone.layers.I, patch_embed.projection      backbone.blocks.I, patch_embed.proj
    neck.norm.I, channel_proj.I, feat_extract.I    norms.I, neck.laterals.I, neck.outputs.I
    decode_head, auxiliary_head.I                  decoder, auxiliary.I (naive, PUP: norms of these)

Its releases 0.x and 1.x have the same names. Numbers that no tensor shows are those of its configs:
GELU, LayerNorm's epsilon of 1e-6, the upsampling of each head, the tapped layers.
"""

import re
from collections.abc import Mapping
from typing import Final

from fl_ppseg.setr.names import BACKBONE_PREFIX

MAIN: Final = "decode_head."
AUXILIARY: Final = "auxiliary_head."
NECK: Final = "neck."

POSITION: Final = "backbone.pos_embed"
PATCHES: Final = "backbone.patch_embed.projection.weight"
CLASSIFIER: Final = "decode_head.conv_seg.weight"
FIRST_CONV: Final = "decode_head.up_convs.0.0.conv.weight"
FIRST_LATERAL: Final = "neck.mla.channel_proj.0.conv.weight"

_LAYER: Final = {
    "ln1": "norm1",
    "attn.attn.in_proj_": "attn.qkv.",
    "attn.attn.out_proj": "attn.proj",
    "ln2": "norm2",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}
_NUMBER: Final = r"(0|[1-9]\d*)"
_CONV: Final = {"conv": "conv", "bn": "norm"}


def renamed(name: str, decoder: str, num_auxiliary: int) -> str | None:
    """Our name of one of mmsegmentation's tensors, or None if our SETR has no such tensor.

    >>> renamed("backbone.layers.3.attn.attn.in_proj_weight", "pup", 0)
    'backbone.blocks.3.attn.qkv.weight'
    >>> renamed("auxiliary_head.1.up_convs.0.0.bn.running_var", "pup", 3)
    'auxiliary.1.stages.conv1.norm.running_var'

    Args:
        name: Its name in mmsegmentation.
        decoder: `naive`, `pup` or `mla`.
        num_auxiliary: How many auxiliary heads the model has.
    """
    if name.startswith(BACKBONE_PREFIX):
        rest = _of_backbone(name.removeprefix(BACKBONE_PREFIX))
        return None if rest is None else BACKBONE_PREFIX + rest
    if decoder == "mla":
        return _of_mla(name)
    if name.startswith(MAIN):
        return _of_up_head(name.removeprefix(MAIN), "decoder", num_auxiliary)
    if found := re.fullmatch(rf"auxiliary_head\.{_NUMBER}\.(.+)", name):
        return _of_up_head(found[2], f"auxiliary.{found[1]}", int(found[1]))
    return None


def layer_numbers(names: Mapping[str, object], pattern: str) -> int:
    """How many numbers the names have in the place of a group, counted from 0 to the largest."""
    found = (re.match(pattern, name) for name in names)
    return max((int(each[1]) + 1 for each in found if each), default=0)


def _of_backbone(rest: str) -> str | None:
    if rest in ("cls_token", "pos_embed"):
        return rest
    if rest.startswith("patch_embed.projection."):
        return rest.replace("projection", "proj")
    found = re.fullmatch(rf"layers\.{_NUMBER}\.(.+)", rest)
    for theirs, ours in _LAYER.items() if found else ():
        assert found is not None
        if found[2].startswith(theirs):
            return f"blocks.{found[1]}.{ours}{found[2].removeprefix(theirs)}"
    return None


def _of_up_head(rest: str, head: str, norm: int) -> str | None:
    if found := re.fullmatch(rf"up_convs\.{_NUMBER}\.0\.(conv|bn)\.(\w+)", rest):
        return f"{head}.stages.conv{int(found[1]) + 1}.{_CONV[found[2]]}.{found[3]}"
    if found := re.fullmatch(r"conv_seg\.(\w+)", rest):
        return f"{head}.classifier.conv.{found[1]}"
    if found := re.fullmatch(r"norm\.(\w+)", rest):
        return f"norms.{norm}.{found[1]}"
    return None


def _of_mla(name: str) -> str | None:
    if found := re.fullmatch(rf"neck\.norm\.{_NUMBER}\.(\w+)", name):
        return f"norms.{found[1]}.{found[2]}"
    if found := re.fullmatch(rf"neck\.mla\.(\w+)\.{_NUMBER}\.(conv|bn)\.(\w+)", name):
        part = {"channel_proj": "laterals", "feat_extract": "outputs"}.get(found[1])
        return part and f"neck.{part}.{found[2]}.{_CONV[found[3]]}.{found[4]}"
    if found := re.fullmatch(rf"decode_head\.up_convs\.{_NUMBER}\.([01])\.(conv|bn)\.(\w+)", name):
        return f"decoder.branches.{found[1]}.{found[2]}.{_CONV[found[3]]}.{found[4]}"
    if found := re.fullmatch(r"decode_head\.conv_seg\.(\w+)", name):
        return f"decoder.classifier.conv.{found[1]}"
    if found := re.fullmatch(rf"auxiliary_head\.{_NUMBER}\.conv_seg\.(\w+)", name):
        return f"auxiliary.{found[1]}.classifier.conv.{found[2]}"
    return None
