"""Checkpoints of mmsegmentation's SETR against a second reading of its configs."""

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mmseg_setr
import numpy as np
import pytest
import torch
from torch import Tensor

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.exchange import pickled_tensors
from fl_ppseg.setr.exchange.mmseg import MmsegModel, read_mmseg
from fl_ppseg.setr.exchange.mmseg_names import renamed
from fl_ppseg.setr.model import SETR, Logits
from fl_ppseg.setr.sizes import tensor_shapes
from fl_ppseg.setr.weights import fit_weights, load_weights, save_weights
from fl_ppseg.system.errors import InputError

SIZE = (24, 24)
KINDS = ["naive", "naive-ade20k", "pup", "pup-base", "mla"]
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)

State = dict[str, Tensor]


def photographs(size: tuple[int, int]) -> Tensor:
    """(2, 3, H, W) float, bytes of RGB."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 3, *size), generator=generator).float()


def checkpoint(state: State, path: Path) -> Path:
    """What mmcv's runner saves, and `publish_model.py` leaves of it."""
    meta = {"mmseg_version": "0.14.1", "config": "model = dict(...)", "CLASSES": ("road", "sky"),
            "PALETTE": [[128, 64, 128], [70, 130, 180]], "iter": 80000}  # fmt: skip
    torch.save({"meta": meta, "state_dict": OrderedDict(state)}, path)
    return path


def saved(path: Path, kind: str = "naive", size: tuple[int, int] = SIZE) -> Path:
    return checkpoint(mmseg_setr.trained(kind, size, 5, seed=0).state_dict(), path / "setr.pth")


def built(read: MmsegModel, size: tuple[int, int] | None = None) -> SETR:
    model = build_architecture(read.config, read.num_classes, size or read.image_size).eval()
    fit_weights(model, read.state, Path("setr.pth"), read.grid, None)
    return model


@torch.no_grad()
def difference(theirs: mmseg_setr.Mmsegmentation, ours: SETR, size: tuple[int, int]) -> float:
    """Largest difference of the scores of any head, of scores of about 1."""
    images = photographs(size)
    main, beside = theirs((images - MEAN) / STD)
    found: Logits = ours((2 * images - 255) / 255)
    assert [each.shape for each in found.auxiliary] == [each.shape for each in beside]
    assert main.std() > 0.05
    pairs = zip([found.main, *found.auxiliary], [main, *beside], strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_all_heads_are_mmsegmentations(kind: str, tmp_path: Path) -> None:
    theirs = mmseg_setr.trained(kind, SIZE, 5, seed=1)
    read = read_mmseg(checkpoint(theirs.state_dict(), tmp_path / "setr.pth"))
    assert (read.num_classes, read.image_size, read.grid) == (5, SIZE, (6, 6))
    assert difference(theirs, built(read), SIZE) < 1e-5
    # of another size: bilinear positions, as mmsegmentation has them while it predicts
    assert difference(theirs, built(read, (16, 40)), (16, 40)) < 1e-5


def test_a_model_file_of_it_gives_the_same_bits(tmp_path: Path) -> None:
    read = read_mmseg(saved(tmp_path))
    save_weights(read.state, tmp_path / "setr.safetensors", grid=read.grid)
    model = build_architecture(read.config, read.num_classes, read.image_size).eval()
    load_weights(model, tmp_path / "setr.safetensors")
    images = photographs(SIZE) / 255
    with torch.no_grad():
        assert torch.equal(model(images).main, built(read)(images).main)


def test_without_auxiliary_heads_the_main_scores_stay(tmp_path: Path) -> None:
    for kind in ("pup", "mla"):
        path = saved(tmp_path, kind)
        whole, main = built(read_mmseg(path)), built(read_mmseg(path, auxiliary=False))
        images = photographs(SIZE) / 255
        with torch.no_grad():
            assert main(images).auxiliary == ()
            assert torch.equal(whole(images).main, main(images).main)


def test_what_no_tensor_shows_can_be_given(tmp_path: Path) -> None:
    theirs = mmseg_setr.trained("naive", (16, 36), 5, seed=2)
    theirs.backbone.with_cls_token = False
    for layer in theirs.backbone.layers:
        layer.attn.attn.num_heads, layer.attn.attn.head_dim = 4, 32
    path = checkpoint(theirs.state_dict(), tmp_path / "setr.pth")
    half = (0.5, 0.5, 0.5)
    read = read_mmseg(
        path, num_heads=4, image_size=(16, 36), class_token=False, normalisation=(half, half)
    )
    assert read.grid == (4, 9)
    images = photographs((16, 36)) / 127.5 - 1
    with torch.no_grad():
        main, _ = theirs(images)
        torch.testing.assert_close(built(read)(images).main, main, rtol=0, atol=1e-5)
    for wrong in ({"num_heads": 2}, {"class_token": True}):
        other = read_mmseg(path, image_size=(16, 36), **({"num_heads": 4} | wrong))
        with torch.no_grad():
            assert (built(other)(images).main - main).abs().max() > 1e-3


@pytest.mark.parametrize("classes", [19, 150])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_of_the_published_sizes(kind: str, classes: int) -> None:
    """ViT-L at 768x768 and 512x512, counted without memory."""
    side = 768 if classes == 19 else 512
    with torch.device("meta"):
        theirs = mmseg_setr.Mmsegmentation(kind, (side, side), classes, mmseg_setr.LARGE)
    decoder = kind.partition("-")[0]
    config = mmseg_config(decoder, auxiliary_convs=mmseg_setr.AUXILIARY.get(kind, [None])[0])
    own = dict(tensor_shapes(config, classes, (side, side)))
    if decoder == "mla":  # the token that the encoder does not see stays in its checkpoints
        own["backbone.cls_token"] = (1, 1, 1024)
        own["backbone.pos_embed"] = (1, (side // 16) ** 2 + 1, 1024)
    number = config.num_auxiliary
    shapes = {
        renamed(name, decoder, number): tuple(tensor.shape)
        for name, tensor in theirs.state_dict().items()
    }
    assert shapes == own
    assert len(shapes) == len(theirs.state_dict())


def mmseg_config(decoder: str, **fields: object) -> ModelConfig:
    """Section `model` for mmsegmentation's ViT-L."""
    return ModelConfig.model_validate(
        {"backbone": "vit", "patch_size": 16, "embed_dim": 1024, "depth": 24, "num_heads": 16,
         "decoder": decoder, "decoder_channels": 256, "num_convs": None, "norm": "batch",
         "num_auxiliary": 4 if decoder == "mla" else 3, "class_token": decoder != "mla",
         "weights": None} | fields
    )  # fmt: skip


# Files in other forms.


def test_other_forms_of_the_same_tensors(tmp_path: Path) -> None:
    state = mmseg_setr.trained("naive", SIZE, 5, seed=0).state_dict()
    wanted = read_mmseg(saved(tmp_path)).state
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    path = tmp_path / "other.pth"
    forms: list[tuple[object, dict[str, object]]] = [
        (state, {}),
        ({"state_dict": wrapped}, {}),
        ({"state_dict": state}, {"_use_new_zipfile_serialization": False}),
        ({"state_dict": {name: torch.nn.Parameter(t, False) for name, t in state.items()}}, {}),
    ]
    for content, how in forms:
        torch.save(content, path, **how)
        found = read_mmseg(path).state
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = mmseg_setr.trained("naive", SIZE, 5, seed=0).state_dict()
    halved = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    read = read_mmseg(checkpoint(halved, tmp_path / "half.pth"))
    assert {tensor.dtype for tensor in read.state.values()} == {torch.float32, torch.int64}


class HistoryBuffer:
    """What mmengine's runner keeps of the loss beside the weights, with a method by name."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)
        self.last = np.float64(2.0)
        self.methods = {"mean": HistoryBuffer.mean}

    @staticmethod
    def mean() -> None: ...


HistoryBuffer.__module__ = "mmengine.logging.history_buffer"


def test_curves_of_mmengine_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[names[-1]], "HistoryBuffer", HistoryBuffer, raising=False)
    state = mmseg_setr.trained("naive", SIZE, 5, seed=0).state_dict()
    curves = {"message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}}}
    torch.save({"state_dict": state} | curves, tmp_path / "mmengine.pth")
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    assert (
        read_mmseg(tmp_path / "mmengine.pth").state.keys()
        == read_mmseg(saved(tmp_path)).state.keys()
    )


# Files that are refused.


class Calls:
    """A pickle of it calls a function with one argument."""

    def __init__(self, function: Callable[[str], object], argument: str) -> None:
        self.call = (function, (argument,))

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return self.call


def refused(path: Path) -> str:
    """The line that an error says, which must be one."""
    with pytest.raises(InputError) as raised:
        read_mmseg(path)
    line = str(raised.value)
    assert "\n" not in line and str(path) in line and len(line) < 1_000
    return line


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, "posix.mkdir"), (eval, "eval"), (Path, "pathlib")]
)
def test_code_in_a_pickle_is_refused_and_not_run(
    function: Callable[[str], object], named: str, new: bool, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    argument = f"__import__('os').mkdir({str(trace)!r})" if function is eval else str(trace)
    path = tmp_path / "evil.pth"
    state = mmseg_setr.trained("naive", SIZE, 5, seed=0).state_dict()
    content = {"meta": Calls(function, argument), "state_dict": state}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    assert f"it names {named}" in refused(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # without the check it does run
    assert trace.exists() or function is Path


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    whole = saved(tmp_path).read_bytes()
    path = tmp_path / "bad.pth"
    assert "no such file" in refused(path)
    assert "no such file" in refused(tmp_path)
    for content in (b"", b"no tensors here", whole[: len(whole) // 2], whole[:200],
                    pickle.dumps({"state_dict": {}})):  # fmt: skip
        path.write_bytes(content)
        assert "not a checkpoint of tensors" in refused(path)
    for content in ([], {"state_dict": [1]}, {"state_dict": {}}, {1: torch.ones(1)},
                    {"a": 1}, {"a": torch.ones(2).to_sparse()}, {"a": torch.ones(2).cfloat()},
                    {"a" * 2_000: torch.ones(1)}):  # fmt: skip
        torch.save(content, path)
        assert "not a checkpoint of tensors" in refused(path)


def test_compressed_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, bytes(len(data)) if "/data/" in name else data)
    assert "it is compressed" in refused(bomb)
    monkeypatch.setattr(pickled_tensors, "MAX_BYTES", 1_000)
    assert "at most 1,000 are read" in refused(path)


Spoil = Callable[[State], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.pop("backbone.pos_embed"), "lacks backbone.pos_embed"),
        (lambda s: s.pop("decode_head.conv_seg.bias"), "lacks what becomes decoder.classifier"),
        (lambda s: s.pop("backbone.layers.3.ln1.bias"), "becomes backbone.blocks.3.norm1.bias"),
        (lambda s: s.update({"backbone.ln1.weight": torch.ones(128)}), "unknown 'backbone.ln1"),
        (lambda s: s.update({"bad\nname": torch.ones(1)}), r"unknown 'bad\nname'"),
        (lambda s: s.update({"backbone.layers.00.ln1.bias": torch.ones(128)}), "layers.00"),
        (
            lambda s: s.update({"decode_head.norm.bias": torch.ones(7)}),
            "'decode_head.norm.bias' is (7,), not (128,)",
        ),
        (
            lambda s: s.update({"backbone.pos_embed": torch.ones(1, 31, 128)}),
            "30 patches of 4x4 pixels",
        ),
        (lambda s: s.update({"backbone.pos_embed": torch.ones(37, 128)}), "is (37, 128)"),
        (
            lambda s: s.update({"backbone.layers.9999.ln1.bias": torch.ones(128)}),
            "depth: Input should be less than or equal to 128",
        ),
        (
            lambda s: s.update({"auxiliary_head.3.norm.bias": torch.ones(128)}),
            "4 auxiliary heads, expected 3",
        ),
        (
            lambda s: s.update(
                {"backbone.patch_embed.projection.weight": torch.ones(100, 3, 4, 4)}
            ),
            "give the number of heads",
        ),
        (
            lambda s: s.update({"decode_head.conv_seg.weight": torch.ones(2_000, 16, 1, 1)}),
            "1 to 1024 classes",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(spoil: Spoil, said: str, tmp_path: Path) -> None:
    state = mmseg_setr.trained("naive", SIZE, 5, seed=0).state_dict()
    spoil(state)
    path = checkpoint(state, tmp_path / "setr.pth")
    assert said in refused(path)


def test_a_timm_checkpoint_is_none(tmp_path: Path) -> None:
    torch.save({"pos_embed": torch.ones(1, 197, 192)}, tmp_path / "timm.pth")
    assert "no SETR of mmsegmentation: lacks" in refused(tmp_path / "timm.pth")
