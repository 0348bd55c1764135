"""`fl-ppseg COMMAND`, or `python -m fl_ppseg COMMAND`: every command under one name.

A command loads its own modules alone, and none is loaded to name them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fl_ppseg.system.command_line import PROGRAM, Parser, run
from fl_ppseg.system.verbs import Verb, dispatch

DESCRIPTION: Final = """\
Federated semantic segmentation on perceptually encrypted images, without key sharing. Each command
is also a module: python -m fl_ppseg.simulate, clients.vault, strategies.coordinator, ...
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    Raises:
        InputError: There is no such command, or what it was given does not fit.
        RunError: The command failed.
    """
    return dispatch("fl_ppseg", DESCRIPTION, COMMANDS, argv)


def script() -> int:
    """What the console script calls; returns the exit status."""
    return run(main)


def _simulate(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.simulate import main

    return main(argv)


def _describe(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.describe import main

    return main(argv)


def _audit(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.audit.command import main

    return main(argv)


def _evaluate(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.evaluate import main

    return main(argv)


def _predict(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.predict.command import main

    return main(argv)


def _export(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.export import main

    return main(argv)


def _serve(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.serve import main

    return main(argv)


def _convert(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.convert.command import main

    return main(argv)


def _synthesize(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.synthesize import main

    return main(argv)


def _pretrain(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.pretrain import main

    return main(argv)


def _initialise(parser: Parser, argv: Sequence[str]) -> int:
    from fl_ppseg.initialise import main

    return main(argv)


def _vault(parser: Parser, argv: Sequence[str]) -> int:
    from clients.vault.command import main

    return main(argv)


def _node(parser: Parser, argv: Sequence[str]) -> int:
    from clients.node.command import main

    return main(argv)


def _coordinator(parser: Parser, argv: Sequence[str]) -> int:
    from strategies.coordinator.command import main

    return main(argv)


def _completion(parser: Parser, argv: Sequence[str]) -> int:
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    options = parser.parse_args(argv)
    from fl_ppseg.system.completion import completion

    print(completion(PROGRAM, COMMANDS, options.shell))
    return 0


COMMANDS: Final[Mapping[str, Verb]] = {
    "simulate": Verb("federate arms on this machine and compare them", _simulate),
    "describe": Verb("list arms, settings of the config, or ciphers, in words", _describe),
    "audit": Verb("attack the arms of a run and say what each adversary gets", _audit),
    "evaluate": Verb("score a checkpoint on a data set", _evaluate),
    "predict": Verb("segment images by a trained model that sees ciphertexts only", _predict),
    "export": Verb("write a trained model as a folder with a model card", _export),
    "serve": Verb("segment encrypted images that others send over HTTP", _serve),
    "convert": Verb("make a tree in Cityscapes layout out of a download", _convert),
    "synthesize": Verb("write procedural street scenes in Cityscapes layout", _synthesize),
    "pretrain": Verb("make starting weights from public scenes", _pretrain),
    "initialise": Verb("start a run on separate machines: config, weights of round 0", _initialise),
    "vault": Verb("owner: keys, encryption, backup, rotation, withdrawal", _vault),
    "node": Verb("node: its key pair, its SuperNode", _node),
    "coordinator": Verb("coordinator: certificates, enrolment, SuperLink, runs", _coordinator),
    "completion": Verb("print the script that completes this program in a shell", _completion),
}
"""In the order of the README."""


if __name__ == "__main__":
    raise SystemExit(script())
