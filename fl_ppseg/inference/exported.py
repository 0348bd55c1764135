"""A folder that holds a model and all that one needs to ask it, and that anybody may have written.

model.safetensors  the weights
config.json        what queries must be, how to build the model, its classes, what is known of it
README.md          the same for people: the model card
model.onnx         the network for other programs, if it was asked for; not read here

Every file is bounded before it is read, no link in the folder is followed, and no tensor is read
before its shape is that of the model which the config describes.
"""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Final

import safetensors.torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from fl_ppseg.config.documents import parse_json, read_bytes
from fl_ppseg.config.loading import validate
from fl_ppseg.config.section import Section
from fl_ppseg.data.classes import TableFile, table_of
from fl_ppseg.data.manifest import Sha256
from fl_ppseg.inference.about import About
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.sizes import Shapes, num_elements, tensor_shapes
from fl_ppseg.setr.tensor_file import MAX_HEADER_BYTES, header_of
from fl_ppseg.system.errors import InputError

CONFIG: Final = "config.json"
TENSORS: Final = "model.safetensors"
CARD: Final = "README.md"
ONNX: Final = "model.onnx"
SCHEMA: Final = 1
MAX_CONFIG_BYTES: Final = 2**22
"""Ten thousand places that trained, and four thousand characters of each sentence of an audit."""
MAX_ITEM_BYTES: Final = 8


class ModelFile(Section):
    """What config.json of an exported folder says."""

    schema_: Annotated[int, Field(alias="schema")]
    """Version of this form."""
    fl_ppseg: Annotated[str, Field(max_length=100)]
    """Version of the program that wrote it."""
    name: Annotated[str, Field(min_length=1, max_length=200)]
    """What the model is called."""
    spec: QuerySpec
    """What a query must be."""
    classes: TableFile
    """The class table."""
    about: About
    """How to build the model, and what is known of it."""
    sha256: Sha256
    """Of the file of tensors."""


def is_exported(path: Path) -> bool:
    """Whether a folder is an exported model, or says that it is one."""
    return (path / CONFIG).exists()


def read_exported(folder: Path, device: str) -> Segmenter:
    """The model in a folder.

    Raises:
        InputError: A file is missing, too large, a link, damaged, or of another version, or the
            tensors are not those of the model that the config describes.
    """
    told = read_config(folder)
    classes = table_of(told.classes, folder / CONFIG)
    spec, settings = told.spec, told.about.settings
    try:
        shapes = tensor_shapes(settings, classes.num_classes, spec.image_size)
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: {error}") from None
    network = build_architecture(settings, classes.num_classes, spec.image_size)
    if network.patch_size != spec.block_size:
        raise InputError(
            f"{folder / CONFIG}: expected blocks of the model's patch, {network.patch_size} pixels,"
            f" got {spec.block_size}"
        )
    network.load_state_dict(_tensors(folder / TENSORS, shapes, told.sha256))
    return Segmenter(network.to(device), spec, classes, told.name, told.about)


def read_config(folder: Path) -> ModelFile:
    """What a folder says of its model, checked; no tensor is read.

    Raises:
        InputError: The file is missing, too large, a link, damaged, or of another version.
    """
    path = folder / CONFIG
    values = parse_json(
        read_bytes(path, MAX_CONFIG_BYTES, follow_link=False), str(path), MAX_CONFIG_BYTES
    )
    _check_schema(values, path)
    return validate(ModelFile, values, str(path))


def _check_schema(values: Any, path: Path) -> None:
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path}: expected an exported model of schema {SCHEMA}, got {ascii(schema)[:60]}; "
            "load it with the version of fl_ppseg that wrote it, or export it again"
        )


def _tensors(path: Path, shapes: Shapes, digest: str) -> dict[str, Tensor]:
    most = 8 + MAX_HEADER_BYTES + MAX_ITEM_BYTES * num_elements(shapes)
    content = read_bytes(path, most, follow_link=False)
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: damaged (its hash differs from that in {CONFIG}); copy it again")
    if dict(header_of(BytesIO(content), path).shapes) != dict(shapes):
        raise InputError(f"{path}: its tensors are not those of the model that {CONFIG} describes")
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
