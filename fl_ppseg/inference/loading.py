"""A trained model from wherever it lies: a run, an arm of it, a checkpoint, an exported folder."""

from pathlib import Path

from fl_ppseg.config import run_layout
from fl_ppseg.federation.checkpoints import (
    find_checkpoint,
    load_checkpoint,
    model_of,
    protection_of,
)
from fl_ppseg.inference import mmsegmentation
from fl_ppseg.inference.about import About
from fl_ppseg.inference.class_names import table_named
from fl_ppseg.inference.exported import is_exported, read_exported
from fl_ppseg.inference.facts import facts_of
from fl_ppseg.inference.query_spec import spec_of
from fl_ppseg.inference.segmenter import Segmenter
from fl_ppseg.system.device import check_device
from fl_ppseg.system.errors import InputError


def load(path: str | Path, *, device: str = "cpu", classes: str | Path = "cityscapes") -> Segmenter:
    """Load a trained model, with all that one needs to ask it.

    Args:
        path: The folder of an arm in a run (`RUN/per-image-invariant-labels`), of which the newest
            round is taken; a run of one arm; a checkpoint, `round_<nnnn>.safetensors`; a folder
            that `fl_ppseg.save` wrote; or a SETR of mmsegmentation, .pth. Whoever wrote it: what it
            says is checked before it is used.
        device: Where to compute: cpu, cuda, cuda:1, ...
        classes: Class table of a .pth, which names none; all others have their own.

    Returns:
        The model, in evaluation mode.

    Raises:
        InputError: There is no such model, it is damaged, not finite or of another version, it is
            one model per client, or the device cannot be used.
    """
    check_device(device)
    place = Path(path).expanduser()
    if is_exported(place):
        model = read_exported(place, device)
    elif place.suffix == mmsegmentation.SUFFIX:
        model = mmsegmentation.read_mmsegmentation(place, classes, device)
    else:
        model = _of_checkpoint(place, device)
    for name, tensor in model.network.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise InputError(
                f"{place}: {name} holds values that are not finite, with which every answer would "
                "be the same; take an earlier round, or train again"
            )
    return model


def _of_checkpoint(place: Path, device: str) -> Segmenter:
    file = find_checkpoint(place)
    checkpoint = load_checkpoint(file)
    told = checkpoint.description
    if checkpoint.has_own_models:
        raise InputError(f"{file}: holds one model per client, and no common one to ask")
    run, protection = _run_of(file), protection_of(checkpoint)
    network = model_of(checkpoint).to(device)
    classes = table_named(told.classes, None if run is None else run / run_layout.CONFIG)
    spec = spec_of(protection, network.patch_size, told.image_size, told.fit)
    facts = facts_of(told.arm, told.seed, checkpoint.round, run)
    settings = told.model.model_copy(update={"weights": None, "pretrained": False})
    about = About(settings=settings, protection=protection, facts=facts)
    return Segmenter(network, spec, classes, told.arm, about)


def _run_of(file: Path) -> Path | None:
    """The run folder that a checkpoint lies in; None where it lies by itself."""
    if len(file.absolute().parents) < 3:
        return None
    run = run_layout.run_of(file)
    return run if (run / run_layout.CONFIG).is_file() else None
