"""The tensors of a PyTorch checkpoint (.pth), read without making any object but tensors.

A .pth is a pickle, which can call whatever it names. PyTorch's reader with `weights_only` calls
nothing but what rebuilds tensors, and refuses all other names. A few names stand in checkpoints of
mmengine beside the weights, for curves of the loss: `Ignored` takes their place.
"""

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from fl_ppseg.setr.sizes import MAX_PARAMETERS
from fl_ppseg.setr.tensor_file import MAX_NAME, MAX_TENSORS
from fl_ppseg.system.errors import InputError

MAX_BYTES: Final = 3 * 4 * MAX_PARAMETERS
"""Weights in 32 bits, and the two moments that an optimiser keeps of each."""
WRAPPED: Final = "module."
"""What torch's DistributedDataParallel puts before every name."""

State = dict[str, Tensor]


class Ignored:
    """Stands for what is no tensor: takes any arguments, keeps none."""

    def __init__(self, *_: object) -> None: ...

    def __new__(cls, *_: object) -> "Ignored":
        """Take the arguments that were another class's."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


IGNORED: Final = (
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)
"""What mmengine's curves name, in their pickles."""


def read_tensors(path: Path) -> State:
    """Read the state dict of a checkpoint: its entry `state_dict`, or the whole of it.

    Args:
        path: A file that `torch.save` made.

    Returns:
        Tensors by name, without the prefix `module.`, as the file holds them.

    Raises:
        InputError: It is no such file, is too large, or holds more than tensors, numbers, text and
            mmengine's curves; nothing that it names has been called then.
    """
    _check_size(path)
    try:
        with (
            torch.serialization.safe_globals([(Ignored, name) for name in IGNORED]),
            warnings.catch_warnings(action="ignore"),  # of what is refused below
        ):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a hostile or broken pickle can raise whatever it likes
        raise InputError(f"{path}: not a checkpoint of tensors ({_reason(error)})") from None
    return _state(content, path)


def _check_size(path: Path) -> None:
    """Refuse what is no file, is too large, or would unpack to more than it is."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a checkpoint, .pth")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"{path}: {size:,} bytes; at most {MAX_BYTES:,} are read: save its state_dict alone"
        )
    if not zipfile.is_zipfile(path):
        return  # PyTorch's older format, which is not compressed
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a checkpoint of tensors ({_reason(error)})") from None
    if unpacked > size:
        raise InputError(f"{path}: not a checkpoint of tensors (it is compressed)")


def _state(content: Any, path: Path) -> State:
    """The tensors by name, from what a checkpoint holds."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or len(state) > MAX_TENSORS:
        raise InputError(f"{path}: not a checkpoint of tensors (expected names with tensors)")
    for name, tensor in state.items():
        if not isinstance(name, str) or len(name) > MAX_NAME:
            raise InputError(f"{path}: not a checkpoint of tensors (one has no name)")
        if not _is_plain(tensor):
            raise InputError(f"{path}: not a checkpoint of tensors ({name!a} is no plain tensor)")
    prefix = WRAPPED if all(name.startswith(WRAPPED) for name in state) else ""
    return {name.removeprefix(prefix): tensor.detach() for name, tensor in state.items()}


def _is_plain(tensor: object) -> bool:
    """Whether this is a dense tensor of real numbers in memory."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_complex()
    )


def _reason(error: Exception) -> str:
    """Why a file is refused; PyTorch's own words advise to read it without any check."""
    if named := re.search(r"GLOBAL ([\w.]{1,200})", str(error)):
        return f"it names {named[1]}, which was not run; save its state_dict alone"
    return "broken, cut short, or not made by torch.save"
