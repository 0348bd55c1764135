"""`python -m fl_ppseg.evaluate`: score a checkpoint on your own data set.

Images are encrypted with ephemeral keys as the checkpoint's arm requires (one key per client for
`per-client`, one key per image for `per-image`): owners and keys that training never saw. A private
embedding is adapted to each new key. Only arms whose owners share a key need it: `--key`.

Beside the score stand its intervals over other images and other places, the score of the weights
which the training started from, and what its training label maps score without a look at any image,
as far as the run folder has them.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_ppseg.config.run_layout import run_of
from fl_ppseg.system.command_line import Parser, run, tree_of
from fl_ppseg.system.device import check_device
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from clients.query import Key
    from fl_ppseg.data.dataset import Dataset, Scene
    from fl_ppseg.experiment.scoring import NewQuery
    from fl_ppseg.federation.checkpoint_file import Checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Score each client of a split and all of them together; print a table or JSON.

    Raises:
        InputError: For a checkpoint or images that cannot be read or do not fit each other.
    """
    options = _parser().parse_args(argv)
    root = tree_of(options.data_root)
    scores = evaluate_checkpoint(
        options.checkpoint,
        Path(root),
        split=options.split,
        classes=options.classes,
        key=options.key,
        device=options.device,
        quiet=options.quiet,
    )
    print(json.dumps(scores, indent=1, allow_nan=False) if options.json else _table(scores))
    return 0


def evaluate_checkpoint(
    path: Path,
    root: Path,
    *,
    split: str,
    classes: str,
    key: str | None = None,
    device: str = "cpu",
    quiet: bool = True,
) -> dict[str, Any]:
    """Scores of a checkpoint on one split of a tree.

    Args:
        path: A `round_<nnnn>.safetensors` of a run folder, its `.json` beside it; or the folder of
            an arm, or of a run of one arm, of which the newest is taken.
        root: A tree in Cityscapes layout.
        split: Folder of the tree, e.g. `val`.
        classes: Class table: a built-in name or a YAML file.
        key: For an arm whose owners share a key, and only for it: the file of its master key,
            `wrong` for a new key, or `none` for images as they are.
        device: Where to compute.
        quiet: Show no progress.

    Returns:
        `{"all": {"aAcc", "mIoU", "mAcc"}, "clients": {client: {...}}, "per_class_iou": {name: %},
        "start": {...}, "no_image": {...}}`; None where no pixel is labelled, and in place of the
        last two where the run folder has no such weights or label map. `all` also has the ends of
        95 % intervals, `mIoU_ci95_images` and `mIoU_ci95_places` (see
        `fl_ppseg.learning.bootstrap`); None where there are too few images or places.

    Raises:
        InputError: If files cannot be read, the class tables differ, or a key is missing or given
            for nothing.
    """
    import numpy as np

    from fl_ppseg.data.classes import load_class_table
    from fl_ppseg.data.dataset import open_dataset
    from fl_ppseg.federation.checkpoints import find_checkpoint, load_checkpoint
    from fl_ppseg.learning.evaluation import score

    check_device(device)
    file = find_checkpoint(path)
    checkpoint = load_checkpoint(file)
    table = load_class_table(classes)
    if table.names != checkpoint.description.classes:
        raise InputError(f"{path}: was trained on other classes than {classes}; give --classes")
    if checkpoint.has_own_models:
        raise InputError(f"{path}: holds one model per client, and no common one to score")
    new_query = _queries(checkpoint, key)  # a key that is wrong is refused before the work
    start = _start_of(file, checkpoint)
    dataset = open_dataset(root, table, required=(split,))
    clients = _checked_scenes(dataset, split, quiet)
    counts = _confusions(checkpoint, clients, new_query, device, quiet)
    each = np.concatenate(list(counts.values()))
    total = score(each.sum(axis=0))
    at_start = start and _confusions(start, clients, _queries(start, key), device, quiet)
    return {
        "all": _percent(total) | _intervals(each, [len(own) for own in counts.values()]),
        "clients": {client: _percent(score(own.sum(axis=0))) for client, own in counts.items()},
        "per_class_iou": dict(zip(table.names, total.per_class_iou, strict=True)),
        "start": at_start and _percent(score(np.concatenate(list(at_start.values())).sum(axis=0))),
        "no_image": _without_image(file, clients, table.num_classes),
    }


def _start_of(file: Path, checkpoint: "Checkpoint") -> "Checkpoint | None":
    """What the training of a checkpoint started from, where it lies beside it."""
    from fl_ppseg.federation.checkpoints import load_checkpoint

    start = file.with_name("round_0000.safetensors")
    if checkpoint.round == 0 or not start.exists():
        return None
    return load_checkpoint(start)


def _without_image(
    file: Path, clients: Mapping[str, Sequence["Scene"]], num_classes: int
) -> dict[str, float | None] | None:
    """What the run's training label maps score, without a look at any image."""
    from fl_ppseg.learning.evaluation import score
    from fl_ppseg.learning.no_image import counts_without_image, label_maps_of, load_answer
    from fl_ppseg.system.files import available_cpus

    answer = load_answer(run_of(file), num_classes)
    if answer is None:
        return None
    scenes = [scene for own in clients.values() for scene in own]
    maps = label_maps_of(scenes, available_cpus())
    return _percent(score(counts_without_image(answer, maps, num_classes).sum(axis=0)))


def _intervals(each: "np.ndarray", sizes: Sequence[int]) -> dict[str, list[float | None] | None]:
    """95 % intervals of the mIoU of (N, C, C) counts of images, client by client."""
    from fl_ppseg.learning.bootstrap import intervals

    found = intervals(each[None], sizes)
    ends = {kind: found.get(kind) for kind in ("images", "places")}
    return {
        f"mIoU_ci95_{kind}": None if pair is None else [_rounded(end) for end in pair]
        for kind, pair in ends.items()
    }


def _checked_scenes(dataset: "Dataset", split: str, quiet: bool) -> dict[str, tuple["Scene", ...]]:
    """The scenes of a split, once it is clear that their label maps can be meant as they are."""
    from fl_ppseg.data.preflight.cache import ScanCache
    from fl_ppseg.data.preflight.rules import refuse_unusable, warnings
    from fl_ppseg.data.preflight.scan import scan_data
    from fl_ppseg.data.preflight.table import scan_table
    from fl_ppseg.learning.scores import MEAN_OF
    from fl_ppseg.progress.steps import steps
    from fl_ppseg.system.files import available_cpus

    own = replace(dataset, splits={split: dataset.split(split)})
    with steps(sys.stderr, quiet) as progress:
        look = partial(progress.update, "looking at images and label maps")
        cache = ScanCache.of_table(dataset.classes)
        found = scan_data(own.splits, available_cpus(), look, cache)
    if not quiet:
        lines = [scan_table(found), *warnings(found), MEAN_OF]
        print("\n".join(lines), file=sys.stderr)
    refuse_unusable(found)
    return own.replaced(found.scenes).split(split)


def _confusions(
    checkpoint: "Checkpoint",
    clients: Mapping[str, Sequence["Scene"]],
    new_query: "NewQuery",
    device: str,
    quiet: bool,
) -> dict[str, "np.ndarray"]:
    """(N, C, C) pixel counts of the N images of each client."""
    from fl_ppseg.experiment.scoring import counts_by_image
    from fl_ppseg.progress.steps import steps

    with steps(sys.stderr, quiet) as progress:
        look = partial(progress.update, "scoring clients")
        return counts_by_image(checkpoint, clients, new_query, device, look)


def _queries(checkpoint: "Checkpoint", key: str | None) -> "NewQuery":
    """What makes the query of one client's owner."""
    from clients.query import load_shared_subkey
    from fl_ppseg.crypto.keys import SubKey
    from fl_ppseg.experiment.scoring import queries
    from fl_ppseg.federation.checkpoints import protection_of

    arm, protection = checkpoint.description.arm, protection_of(checkpoint)
    if protection.key_mode != "shared":
        if key is not None:
            raise InputError(f"arm {arm} shares no key; leave out --key")
        return queries(checkpoint, shared=None)
    if key is None:
        raise InputError(
            f"arm {arm} shares a key among all; give --key FILE (.shared/master.key of the run's "
            "--vault-dir), or --key wrong or --key none for a query without it"
        )
    which: Key = "wrong" if key == "wrong" else "none" if key == "none" else "right"
    # without the shared key any other stands for it: the query fits neither
    is_right = which == "right"
    shared = load_shared_subkey(Path(key), protection) if is_right else SubKey.generate()
    return queries(checkpoint, shared, which)


def _percent(scores: Any) -> dict[str, float | None]:
    return {key: _rounded(getattr(scores, key)) for key in ("aAcc", "mIoU", "mAcc")}


def _rounded(value: float) -> float | None:
    """A score with two decimals; None, which is JSON, where there is none."""
    return round(value, 2) if math.isfinite(value) else None


def _table(scores: dict[str, Any]) -> str:
    baselines = (("start", scores["start"]), ("no image", scores["no_image"]))
    rows = [
        *scores["clients"].items(),
        ("all", scores["all"]),
        *((f"all: {name}", found) for name, found in baselines if found is not None),
    ]
    width = max(len(client) for client, _ in rows)
    head = f"{'client':<{width}}    aAcc    mIoU    mAcc"
    lines = [
        f"{client:<{width}}  " + "  ".join(_cell(row[key]) for key in ("aAcc", "mIoU", "mAcc"))
        for client, row in rows
    ]
    return "\n".join([head, *lines, *_interval_lines(scores)])


def _interval_lines(scores: dict[str, Any]) -> list[str]:
    """The intervals of the score of all clients, each with what it covers."""
    from fl_ppseg.learning.intervals import covers

    found = {kind: scores["all"].get(f"mIoU_ci95_{kind}") for kind in ("images", "places")}
    return [
        f"mIoU of all, 95 % interval over {kind}: {ends[0]:.2f} to {ends[1]:.2f} "
        f"({covers(kind, len(scores['clients']))})"
        for kind, ends in found.items()
        if ends is not None
    ]


def _cell(value: float | None) -> str:
    return f"{'–':>6}" if value is None else f"{value:6.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.evaluate",
        "Score a checkpoint on a tree in Cityscapes layout.",
        shows_defaults=True,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a run's or an arm's folder, or a round's file")
    add("--data-root", type=Path, metavar="DIR", help="the tree (or CITYSCAPES_DATASET)")
    add("--split", default="val", metavar="NAME", help="which split of the tree")
    add("--classes", default="cityscapes", metavar="TABLE", help="class table: name or YAML file")
    add("--key", metavar="KEY", help="where owners share it: FILE of master.key, wrong or none")
    add("--device", default="cpu", metavar="NAME", help="where to compute")
    add("--json", action="store_true", help="print JSON with IoU by class")
    add("--quiet", action="store_true", help="show no progress")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
