"""`python -m fl_ppseg.evaluate`: score a checkpoint on a data set of one's own.

Images are encrypted with throw-away keys as the checkpoint's arm wants it (a key a city for
`per-client`, a key an image for `per-image`): owners and keys that training never saw.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_ppseg.command_line import Parser, run
from fl_ppseg.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Score each city of a split and all of them together; print a table or JSON.

    Raises:
        InputError: For a checkpoint or images that cannot be read or do not fit each other.
    """
    options = _parser().parse_args(argv)
    root = options.data_root or os.environ.get("CITYSCAPES_DATASET")
    if not root:
        raise InputError("give --data-root, or set CITYSCAPES_DATASET to a Cityscapes tree")
    scores = evaluate_checkpoint(
        options.checkpoint,
        Path(root),
        split=options.split,
        classes=options.classes,
        device=options.device,
        quiet=options.quiet,
    )
    print(json.dumps(scores, indent=1) if options.json else _table(scores))
    return 0


def evaluate_checkpoint(
    path: Path, root: Path, *, split: str, classes: str, device: str, quiet: bool
) -> dict[str, Any]:
    """Scores of a checkpoint on one split of a tree.

    Args:
        path: A `round_<nnnn>.safetensors` of a run folder, its `.json` beside it.
        root: A tree in Cityscapes layout.
        split: Folder of the tree, e.g. `val`.
        classes: Class table: a built-in name or a YAML file.
        device: Where to compute.
        quiet: Show no progress.

    Returns:
        `{"all": {"aAcc", "mIoU", "mAcc"}, "cities": {city: {...}}, "per_class_iou": {name: %}}`.

    Raises:
        InputError: If files cannot be read, or the class tables differ.
    """
    import numpy as np

    from fl_ppseg.classes import load_class_table
    from fl_ppseg.dataset import open_dataset
    from fl_ppseg.evaluation import evaluate, score
    from fl_ppseg.panels import model_of
    from fl_ppseg.progress import steps
    from fl_ppseg.run_folder import read_checkpoint

    checkpoint = read_checkpoint(path)
    table = load_class_table(classes)
    if list(table.names) != checkpoint.description["classes"]:
        raise InputError(f"{path}: was trained on other classes than {classes}; give --classes")
    if checkpoint.is_per_city:
        raise InputError(f"{path}: holds a model of every city, and no common one to score")
    model = model_of(checkpoint).to(device)
    cities = open_dataset(root, table, required=(split,)).split(split)
    counts = {}
    with steps(sys.stderr, quiet) as progress:
        for done, (city, scenes) in enumerate(cities.items()):
            progress.update("scoring cities", done, len(cities))
            samples = _encrypted(checkpoint.description, scenes, model.patch_size)
            counts[city] = evaluate(model, samples, table.num_classes, device)[0].numpy()
        progress.update("scoring cities", len(cities), len(cities))
    total = score(np.sum(list(counts.values()), axis=0))
    return {
        "all": _percent(total),
        "cities": {city: _percent(score(c)) for city, c in counts.items()},
        "per_class_iou": dict(zip(table.names, total.per_class_iou, strict=True)),
    }


def _encrypted(
    description: Mapping[str, Any], scenes: Sequence[Any], block_size: int
) -> Iterator[tuple[Any, Any]]:
    """Images of one city at the model's size, encrypted, and the labels to score them by."""
    from clients.vault import throwaway_encryption
    from fl_ppseg.config import ArmConfig
    from fl_ppseg.views import fit_for_scoring

    protection = ArmConfig.model_validate(description["protection"])
    encrypt = throwaway_encryption(protection, block_size)
    height, width = description["image_size"]
    for scene in scenes:
        image, whole = scene.load()
        fitted, labels = fit_for_scoring(image, whole, (height, width), description["fit"])
        yield encrypt(fitted), labels


def _percent(scores: Any) -> dict[str, float]:
    return {key: round(getattr(scores, key), 2) for key in ("aAcc", "mIoU", "mAcc")}


def _table(scores: dict[str, Any]) -> str:
    rows = [*scores["cities"].items(), ("all", scores["all"])]
    width = max(len(city) for city, _ in rows)
    head = f"{'city':<{width}}    aAcc    mIoU    mAcc"
    lines = [
        f"{city:<{width}}  " + "  ".join(f"{row[key]:6.2f}" for key in ("aAcc", "mIoU", "mAcc"))
        for city, row in rows
    ]
    return "\n".join([head, *lines])


def _parser() -> argparse.ArgumentParser:
    parser = Parser("fl_ppseg.evaluate", "Score a checkpoint on a tree in Cityscapes layout.")
    add = parser.add_argument
    add("checkpoint", type=Path, help="round_<nnnn>.safetensors of a run folder")
    add("--data-root", type=Path, metavar="DIR", help="the tree (or CITYSCAPES_DATASET)")
    add("--split", default="val", metavar="NAME", help="which split of it")
    add("--classes", default="cityscapes", metavar="TABLE", help="class table: name or YAML file")
    add("--device", default="cpu", metavar="NAME", help="where to compute")
    add("--json", action="store_true", help="print JSON with IoU by class")
    add("--quiet", action="store_true", help="show no progress")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
