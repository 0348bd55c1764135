"""`python -m fl_ppseg.export`: a trained model as a folder that travels, with its model card."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fl_ppseg.inference.options import add_model
from fl_ppseg.system.command_line import Parser, run


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder; returns the exit status.

    Raises:
        InputError: The model cannot be read, or something else lies at --out.
    """
    options = _parser().parse_args(argv)
    from fl_ppseg.inference.loading import load  # loads PyTorch
    from fl_ppseg.inference.saving import save

    model = load(options.model, classes=options.classes)
    print(save(model, options.out, onnx=options.onnx))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.export",
        "Write a trained model as a folder that fl_ppseg.load and predict take: weights, "
        "what queries must be, classes, and a model card with scores and the audit's figures.",
    )
    add = parser.add_argument
    add_model(parser)
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--onnx", action="store_true", help="also write model.onnx (extra onnx)")
    add("--classes", default="cityscapes", metavar="TABLE", help="class table of a .pth")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
