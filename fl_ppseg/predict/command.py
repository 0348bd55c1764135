"""`python -m fl_ppseg.predict`: label maps of images by a trained model that sees ciphertexts only.

Each image is encrypted under an ephemeral key of its own, or, in arms with a key per client, all of
them under one: an ephemeral one, or the client's own from its vault. A model whose embedding is
adapted to that key is adapted here. The key ends with the command.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fl_ppseg.inference.options import add_model
from fl_ppseg.system.command_line import Parser, count
from fl_ppseg.system.errors import InputError, RunError
from fl_ppseg.system.places import check_apart
from fl_ppseg.system.wording import counted

if TYPE_CHECKING:
    from fl_ppseg.inference.segmenter import Segmenter
    from fl_ppseg.query.client import Client


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images; returns the exit status.

    Raises:
        InputError: Model or key cannot be read or do not fit, no image can be read, or --out is
            taken.
        RunError: Some images could not be read; the others are done.
    """
    options = _parser().parse_args(argv)
    from fl_ppseg.inference.loading import load  # loads PyTorch
    from fl_ppseg.predict.listing import images_in
    from fl_ppseg.predict.outputs import CONFIDENCE, LABELS, OVERLAYS, Outputs, Record, digest_of
    from fl_ppseg.predict.running import predict
    from fl_ppseg.progress.steps import steps

    for place in options.images:
        if place.is_dir():
            why = "predictions would be taken for images"
            check_apart(options.out, place, "--out", why)
    images = images_in(options.images)
    model = _fitted(load(options.model, device=options.device), options.fit)
    client = _client(model, options)
    kinds = {CONFIDENCE: options.confidence, OVERLAYS: options.overlays}
    outputs = Outputs(options.out, model, [kind for kind, is_asked in kinds.items() if is_asked])
    places = tuple(str(place.absolute()) for place in options.images)
    whose = _whose(options)
    outputs.open(Record(model=digest_of(model), name=model.name, key=whose, images=places))
    with steps(sys.stderr, options.quiet) as progress:
        look = partial(progress.update, "segmenting images")
        made = predict(model, client, images, outputs, options.batch, look, progress.say)
    if not options.quiet:
        before = len(images) - sum(made)
        there = f"; {before} were there" if before else ""
        print(f"{options.out / LABELS}: label maps of {counted(made.segmented, 'image')}{there}")
    if made.unusable:
        raise RunError(
            f"{made.unusable} of {counted(len(images), 'image')} could not be segmented, named "
            "above; mend or remove them, and the same command tries these alone"
        )
    return 0


def _fitted(model: "Segmenter", fit: str | None) -> "Segmenter":
    """The model with another way to bring images to its size."""
    if fit is None or fit == model.spec.fit:
        return model
    from fl_ppseg.inference.segmenter import Segmenter

    spec = model.spec.model_copy(update={"fit": fit})
    return Segmenter(model.network, spec, model.classes, model.name, model.about)


def _client(model: "Segmenter", options: argparse.Namespace) -> "Client":
    """Who asks: under ephemeral keys, or under one that a vault holds."""
    from clients.query import shared_client, vault_client
    from fl_ppseg.query.client import Client

    if (options.vault is None) != (options.client is None):
        raise InputError("give --vault and --client together, or neither for ephemeral keys")
    if options.embedding is not None and options.vault is None:
        raise InputError("--embedding reads queries under one client's key: give --vault, --client")
    if options.key is not None:
        if options.vault is not None:
            raise InputError("--key is of all users and --vault of one client; leave one out")
        return shared_client(model, options.key)
    if options.vault is not None:
        return vault_client(model, options.vault, options.client, options.embedding)
    if model.spec.key == "shared":
        raise InputError(
            f"{model.name}: its users share a key; give --key FILE (.shared/master.key of the "
            "run's --vault-dir)"
        )
    return Client(model)


def _whose(options: argparse.Namespace) -> str:
    """Whose key encrypts the images, in words."""
    if options.key is not None:
        return "shared by all users"
    if options.client is None:
        return "ephemeral"
    own = f", with the embedding {options.embedding.absolute()}" if options.embedding else ""
    return f"of client {options.client}, in its vault{own}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "fl_ppseg.predict",
        "Segment images by a trained model: each is encrypted first, with an ephemeral key, and "
        "the model sees ciphertexts only. A call that was stopped goes on where it was.",
    )
    add = parser.add_argument
    add_model(parser)
    add(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help="image files, or folders of them, e.g. leftImg8bit/val",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the predictions")
    add("--overlays", action="store_true", help="write the classes' colours over each image too")
    add("--confidence", action="store_true", help="write how sure the model is, 8 bits, too")
    add("--vault", type=Path, metavar="DIR", help="folder of vaults, for the key of --client")
    add("--client", metavar="NAME", help="whose key in --vault encrypts (one key a client)")
    add(
        "--embedding",
        type=Path,
        metavar="PATH",
        help="private embedding that the node of --client trained: its app's state folder, or a "
        "version in it",
    )
    add("--key", type=Path, metavar="FILE", help="where users share a key: its master.key")
    add(
        "--fit",
        choices=("resize", "crop"),
        help="scale images to the model's size, or slide its window over them (as trained)",
    )
    add("--batch", type=count, default=8, metavar="N", help="most images at once (8)")
    add("--device", default="cpu", metavar="NAME", help="where to compute")
    add("--quiet", action="store_true", help="show no progress")
    return parser
