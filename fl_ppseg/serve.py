"""`python -m fl_ppseg.serve`: segment encrypted images that others send.

It holds no key and no route that could take one: who asks encrypts with a key that never leaves the
asking machine. The interface is described at `/openapi.json` and in `docs/service.md`.
"""

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fl_ppseg.deployment.templates import KINDS
from fl_ppseg.inference.options import add_model
from fl_ppseg.system.command_line import Parser, count, run
from fl_ppseg.system.errors import InputError

if TYPE_CHECKING:
    from fl_ppseg.inference.query_spec import QuerySpec
    from fl_ppseg.service.limits import Limits
    from fl_ppseg.service.queries import Attack


def main(argv: Sequence[str] | None = None) -> int:
    """Answer requests until SIGTERM (exit status 0) or Ctrl-C (130).

    Raises:
        InputError: For a model that cannot be read, or a place where the service may not listen.
    """
    options = _parser().parse_args(argv)
    from fl_ppseg.inference.loading import load

    try:
        from fl_ppseg.service.app import create_app
        from fl_ppseg.service.server import Place, check_place, serve
        from fl_ppseg.service.tokens import load_tokens
        from fl_ppseg.service.unit import write_unit
    except ImportError as error:
        raise InputError(
            f"the package {error.name} is not installed; run pip install 'fl-ppseg[serve]'"
        ) from None
    place = Place(
        options.host, options.port, options.tls_cert, options.tls_key, tuple(options.behind_proxy)
    )
    check_place(place)
    if options.template is not None:
        for path in write_unit(options.template, options.out, _given(options)):
            print(path)
        return 0
    tokens = None if options.tokens is None else load_tokens(options.tokens)
    _log(options.access_log)
    segmenter = load(options.model, device=options.device)
    if segmenter.spec.adapts:
        raise InputError(
            f"{options.model}: reads queries only with an embedding adapted to their key, which no "
            "service may have; ask it by python -m fl_ppseg.predict"
        )
    if segmenter.spec.cipher is None:
        _say("this model takes plain images: who runs this service can look at them")
    attack = None if options.attack is None else _attack(options.attack, segmenter.spec)
    app = create_app(segmenter, limits=_limits(options), tokens=tokens, attack=attack)
    return serve(app, place, _say)


def _attack(path: Path, spec: "QuerySpec") -> "Attack":
    from fl_ppseg.service.reconstruction import load_attack

    return load_attack(path, spec)


def _limits(options: Namespace) -> "Limits":
    from fl_ppseg.service.limits import Limits

    return Limits(
        max_bytes=options.max_bytes,
        max_pixels=options.max_pixels,
        max_requests=options.max_requests,
        max_batch=options.max_batch,
        requests_per_minute=options.rate,
        burst=options.burst,
    )


def _given(options: Namespace) -> list[tuple[str, object]]:
    """The options that say how the service runs, each with its value."""
    names = set(vars(options)) - {"template", "out", "access_log", "behind_proxy"}
    found = [(f"--{name.replace('_', '-')}", getattr(options, name)) for name in sorted(names)]
    proxies = [("--behind-proxy", proxy) for proxy in options.behind_proxy]
    return [(name, value) for name, value in (*found, *proxies) if value is not None]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _log(access: bool) -> None:
    """Failures to standard error, and a line for each request where that is wished."""
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (
        ("fl_ppseg.service", logging.INFO if access else logging.WARNING),
        ("uvicorn", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers, logger.propagate = [terminal], False


def _parser() -> Parser:
    parser = Parser(
        "fl_ppseg.serve",
        "Segment encrypted images that others send over HTTP. Holds no key.",
        shows_defaults=True,
    )
    add = parser.add_argument
    add_model(parser)
    add("--attack", type=Path, metavar="FILE", help="show what this network of an audit restores")
    add("--device", default="cpu", metavar="NAME", help="where to compute")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen")
    add("--port", type=int, default=8080, metavar="N", help="TCP port; 0: any that is free")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    add("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    add(
        "--behind-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a proxy in front that does TLS; its X-Forwarded-For is believed",
    )
    add("--tokens", type=Path, metavar="FILE", help="SHA-256 digests of bearer tokens, mode 0600")
    add("--rate", type=count, default=600, metavar="N", help="requests a minute of one address")
    add("--burst", type=count, default=60, metavar="N", help="of these at once")
    add("--max-requests", type=count, default=64, metavar="N", help="accepted at once, of all")
    add("--max-batch", type=count, default=8, metavar="N", help="segmented at once")
    add("--max-bytes", type=int, default=2**23, metavar="N", help="of a request's body")
    add("--max-pixels", type=int, default=2**21, metavar="N", help="of a query and of an answer")
    add("--template", choices=KINDS, help="write a unit or compose file that does this, and end")
    add("--out", type=Path, default=Path(), metavar="DIR", help="folder to write it to")
    add("--access-log", action="store_true", help="a line a request, without address and body")
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
