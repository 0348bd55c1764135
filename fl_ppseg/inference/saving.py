"""Writing a model as a folder that travels: tensors, what they are, and a card for people."""

from pathlib import Path
from typing import Final

from fl_ppseg.data.classes import entries_of
from fl_ppseg.inference.card import card
from fl_ppseg.inference.exported import (
    CARD,
    CONFIG,
    ONNX,
    SCHEMA,
    TENSORS,
    ModelFile,
    read_config,
)
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.setr.weights import save_weights
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import check_writable, replacing_folder, sha256, write_atomically
from fl_ppseg.system.version import VERSION

OWN: Final = {CARD, CONFIG, ONNX, TENSORS}
"""All that a folder of this program holds."""


def save(model: Segmenter, folder: str | Path, *, onnx: bool = False) -> Path:
    """Write a model as a folder that `fl_ppseg.load` reads: whole, or not at all.

    It holds no key, and nothing of the images: weights, what a query must be, the classes, and a
    model card with the scores and the audit's figures of the run, as far as its folder has them.

    Args:
        model: Of `fl_ppseg.load`, or one that was given its `about`.
        folder: To be made; an exported model that lies there is replaced.
        onnx: Also write the network as an ONNX file, checked in onnxruntime.

    Returns:
        The folder.

    Raises:
        InputError: Something else lies there, the folder cannot be written, nothing is known of how
            the model was built, or the extra `onnx` is not installed.
        RunError: onnxruntime computes other scores.
    """
    target, about = Path(folder).expanduser(), model.about
    _check_free(target)
    check_writable(target.absolute().parent)
    with replacing_folder(target) as draft:
        save_weights(model.network, draft / TENSORS)
        told = ModelFile.model_validate(
            {
                "schema": SCHEMA,
                "fl_ppseg": VERSION,
                "name": model.name,
                "spec": model.spec,
                "classes": entries_of(model.classes),
                "about": about,
                "sha256": sha256(draft / TENSORS),
            }
        )
        write_atomically(draft / CONFIG, told.model_dump_json(by_alias=True, indent=1) + "\n")
        write_atomically(draft / CARD, card(told))
        if onnx:
            from fl_ppseg.setr.exchange.onnx_export import export_onnx

            said = {"classes": ",".join(model.classes.names), "spec": model.spec.model_dump_json()}
            export_onnx(model.network, draft / ONNX, said)
    return target


def _check_free(folder: Path) -> None:
    """Refuse what is not an exported model, whose place must not be taken.

    Raises:
        InputError: It is a file, a link, or a folder that holds anything else.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: is not a folder; choose another one")
    found = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if found and (found - OWN or CONFIG not in found):
        raise InputError(f"{folder}: holds other files than an exported model; choose another one")
    if found:
        read_config(folder)
