"""A survivor network in a file: its weights, and what it was trained to read.

One .safetensors file with weights in half precision; its metadata are JSON of `About`.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fl_ppseg.audit.attacks.network import Reader
from fl_ppseg.audit.attacks.reader import seen_of
from fl_ppseg.config.bounds import ImageSize
from fl_ppseg.config.documents import parse_json
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.setr.tensor_file import read_header
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

KEY: Final = "survivor-network"
"""Of the metadata."""
MAX_ABOUT: Final = 10_000


class About(Section):
    """What a survivor network reads, and how it was trained."""

    version: Literal[1] = 1
    """Of this file."""
    cipher: Annotated[str, Field(max_length=200)]
    """Whose ciphertexts it reads, whatever their key."""
    form: Literal[
        "values", "magnitudes", "placed-magnitudes", "pixels", "pixel-magnitudes", "sub-blocks"
    ]
    """The canonical form that the cipher leaves."""
    block_size: Annotated[int, Field(ge=1, le=128)]
    """Side of a block in pixels."""
    image_size: ImageSize
    """(height, width) of the images that it was trained on, in pixels."""
    num_public: Annotated[int, Field(ge=1)]
    """Public images that it was trained on."""
    steps: Annotated[int, Field(ge=1)]
    """Of its training, and of that of the network that it started from."""


class SavedReader(NamedTuple):
    """A network, in evaluation mode, and what it reads."""

    reader: Reader
    about: About


def write_reader(path: Path, saved: SavedReader) -> None:
    """Write the file, or leave it as it was.

    Raises:
        OSError: It cannot be written.
    """
    tensors = {name: value.half().contiguous() for name, value in saved.reader.state_dict().items()}
    write_atomically(path, save(tensors, {KEY: saved.about.model_dump_json()}))


def read_reader(path: Path) -> SavedReader:
    """Read what `write_reader` wrote.

    Raises:
        InputError: It cannot be read, or is no such file.
    """
    header = read_header(path)
    if KEY not in header.metadata:
        raise InputError(
            f"{path}: holds no survivor network; make one with fl_ppseg.audit --save-network FILE"
        )
    about = validate(About, parse_json(header.metadata[KEY], str(path), MAX_ABOUT), str(path))
    with torch.device("meta"):  # no memory is taken before the sizes are found to be the file's
        reader = _architecture(about)
    expected = {name: tuple(value.shape) for name, value in reader.state_dict().items()}
    if expected != dict(header.shapes):
        raise InputError(f"{path}: its tensors are not those of the network that it describes")
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    reader.load_state_dict(tensors, assign=True)
    return SavedReader(reader.eval(), about)


def _architecture(about: About) -> Reader:
    size, (height, width) = about.block_size, about.image_size
    if height % size or width % size:
        raise InputError(f"a survivor network of {height} x {width} pixels in blocks of {size}")
    return Reader(num_channels(about.form, size), 0, size, (height // size, width // size))


def num_channels(form: str, block_size: int) -> int:
    """Channels of a canonical form, as the network reads it."""
    block = np.zeros((1, 3, block_size, block_size), np.uint8)
    with torch.device("cpu"):
        return seen_of(block, form, block_size, raw=False).shape[1]
