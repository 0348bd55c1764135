"""A SETR that mmsegmentation trained, as a model to ask: on plain images, at their own scale."""

from pathlib import Path
from typing import Final

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.inference.about import About, Facts
from fl_ppseg.inference.query_spec import spec_of
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.setr.build import build_architecture
from fl_ppseg.setr.exchange.mmseg import read_mmseg
from fl_ppseg.system.errors import InputError

SUFFIX: Final = ".pth"
PLAIN: Final = ArmConfig(note="Trained on plain images by mmsegmentation.")


def read_mmsegmentation(path: Path, classes: str | Path, device: str) -> Segmenter:
    """The model in a checkpoint of mmsegmentation; nothing but its tensors is made.

    Args:
        path: The checkpoint, .pth.
        classes: Its class table, in the order of its scores.
        device: Where to compute.

    Raises:
        InputError: As `read_mmseg`, or it has another number of classes.
    """
    read = read_mmseg(path, auxiliary=False)
    table = load_class_table(classes)
    if table.num_classes != read.num_classes:
        raise InputError(
            f"{path}: scores {read.num_classes} classes, {classes} has {table.num_classes}; give "
            "the class table that it was trained with"
        )
    network = build_architecture(read.config, read.num_classes, read.image_size)
    network.load_state_dict(read.state)
    spec = spec_of(PLAIN, network.patch_size, read.image_size, "crop")
    about = About(settings=read.config, protection=PLAIN, facts=Facts())
    return Segmenter(network.to(device), spec, table, path.stem, about)
