"""The option that names a model, of every command that asks or exports one."""

from pathlib import Path

from fl_ppseg.system.command_line import Parser


def add_model(parser: Parser) -> None:
    """Add `--model`: whatever `fl_ppseg.load` takes."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="PATH",
        help="an arm's folder in a run, a checkpoint, an exported folder, or mmsegmentation's .pth",
    )
