"""What secure aggregation costs: bytes and seconds of a round, of a node and of the coordinator.

    python benchmarks/secure_aggregation.py [--nodes 3,18,144] [--words 2097152]

The protocol of `fl_ppseg.secure_sum` in this process, every step of it, for one node and for the
coordinator. CPU seconds of one core, without training, without network. What is linear in the
number of weights (masks, sums) is measured on `--words` weights of a model and multiplied; keys,
shares and signatures are measured as they are. `lost` clients vanish between dealing shares and
sending their update, where they cost the coordinator most. Bytes are those of the JSON that a node
sends and gets in all steps beside weights and update, whose size is that of fp32 either way.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from fl_ppseg.config.sections import ModelConfig
from fl_ppseg.secure_sum.confirmation import Sets, check_confirmations, confirm
from fl_ppseg.secure_sum.contents import (
    ConfirmContent,
    Confirmed,
    ShareContent,
    TrainContent,
    UnmaskContent,
)
from fl_ppseg.secure_sum.masks import transcript
from fl_ppseg.secure_sum.node import Dealt, Masking, Released, Seat, advertise, deal, mask, unmask
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.roster import Roster, Session, check_roster
from fl_ppseg.secure_sum.running_sum import RunningSum, Unmasking
from fl_ppseg.setr.sizes import tensor_shapes

MODELS: Final = {
    "default": (ModelConfig(), (64, 128)),
    "vit-base": (
        ModelConfig(backbone="vit_base_patch16_384", decoder="pup", weights=None),
        (512, 1024),
    ),
}
T = TypeVar("T")
SESSION: Final = Session(run_id="benchmark", arm="plain", seed=0, round=1, attempt=0)


class Costs(NamedTuple):
    """Of one round; seconds of one core."""

    node_sends: int
    node_gets: int
    node_keys: float
    """Signatures, shares, their opening."""
    node_masks: float
    """Masks on the update."""
    sums: float
    """The coordinator's additions of all updates."""
    unmasking: float
    """Restored secrets, and masks off the sum."""


def timed(act: Callable[[], T]) -> tuple[float, T]:
    start = time.process_time()
    made = act()
    return time.process_time() - start, made


def size_of(model: str) -> int:
    """Weights of a model."""
    config, image_size = MODELS[model]
    shapes = tensor_shapes(config, 19, image_size).values()
    return sum(int(np.prod(shape)) for shape in shapes)


def cohort(num_nodes: int) -> dict[str, NodeSecret]:
    return {f"node{n:04d}": NodeSecret((n + 1).to_bytes(32, "big")) for n in range(num_nodes)}


def measure(num_nodes: int, num_lost: int, num_weights: int, num_words: int) -> Costs:
    secrets = cohort(num_nodes)
    keys = {name: secret.public_key for name, secret in secrets.items()}
    adverts = {name: advertise(secret, name, SESSION, 50) for name, secret in secrets.items()}
    roster = Roster(adverts=tuple(adverts.values()))
    own, *_ = names = roster.names
    words = min(num_words, num_weights)
    factor = num_weights / words
    ring = Ring(0.1, num_nodes, 50)
    script = transcript(roster.digest(SESSION), names, "00", ring.exponent, "examples")

    def seat(name: str) -> Seat:
        return Seat(secrets[name], name, SESSION, roster)

    def steps_before() -> Dealt:
        advertise(secrets[own], own, SESSION, 50)
        check_roster(roster, SESSION, keys, adverts[own], 3)
        return deal(seat(own))

    before, mine = timed(steps_before)
    dealt = {own: mine} | {name: deal(seat(name)) for name in names[1:]}
    update = {"w": np.zeros(words, np.uint32)}
    masking, masked = timed(lambda: mask(seat(own), Masking(names, script), update))

    survivors = names[: num_nodes - num_lost]
    total = RunningSum({"w": (words,)})

    # Sums are measured with one update for all; unmasking is checked on what all of them send.
    def add_all() -> None:
        for name in survivors:
            total.add(name, masked, 50)

    adding, _ = timed(add_all)
    small = RunningSum({"w": (4,)})
    for name in survivors:
        sent = mask(seat(name), Masking(names, script), {"w": np.zeros(4, np.uint32)})
        small.add(name, sent, 50)
    sealed = {
        name: {peer: d.shares[name] for peer, d in dealt.items() if peer != name}
        for name in survivors[: roster.threshold]
    }
    sets = Sets(names, survivors)
    signatures = {name: confirm(seat(name), sets) for name in sealed}

    def steps_after() -> Released:
        confirm(seat(own), sets)
        check_confirmations(seat(own), sets, keys, signatures)
        return unmask(seat(own), survivors, sealed[own])

    after, answer = timed(steps_after)
    released = {own: answer} | {
        name: unmask(seat(name), survivors, sealed[name]) for name in list(sealed)[1:]
    }
    how = Unmasking(roster, dealt, script)
    secrets_only, _ = timed(lambda: small.unmask(how, released))
    assert not dict(small.decode(ring))["w"].any(), "the masks did not cancel"
    whole, _ = timed(lambda: total.unmask(how, released))

    contents = [
        ShareContent(roster=roster),
        TrainContent(roster=roster, members=names, exponent=ring.exponent, weighting="examples"),
        ConfirmContent(roster=roster, members=names, survivors=survivors),
        UnmaskContent(
            roster=roster,
            members=names,
            survivors=survivors,
            signatures=signatures,
            shares=sealed[own],
        ),
    ]
    answers = [adverts[own], mine, Confirmed(signature=signatures[own]), answer]
    return Costs(
        node_sends=sum(len(each.model_dump_json()) for each in answers),
        node_gets=sum(len(each.model_dump_json()) for each in contents),
        node_keys=before + after + check_again(roster, keys, adverts[own]),
        node_masks=masking * factor,
        sums=adding * factor,
        unmasking=secrets_only + max(0.0, whole - secrets_only) * factor,
    )


def check_again(roster: Roster, keys: dict[str, str], own: object) -> float:
    """A node keeps nothing: it checks the roster in `train`, `confirm` and `unmask` as well."""
    seconds, _ = timed(lambda: check_roster(roster, SESSION, keys, own, 3))  # type: ignore[arg-type]
    return 3 * seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", default="3,18,144")
    parser.add_argument("--words", type=int, default=2**21)
    options = parser.parse_args(argv)
    print(
        "| model | weights | nodes | lost | node sends, kB | node gets, kB | node: keys, s "
        "| node: masks, s | coordinator: sum, s | coordinator: unmasking, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for model in MODELS:
        weights = size_of(model)
        for nodes in map(int, options.nodes.split(",")):
            for lost in sorted({0, min(2, nodes // 3), nodes // 3}):
                c = measure(nodes, lost, weights, options.words)
                print(
                    f"| {model} | {weights / 1e6:.1f} M | {nodes} | {lost} "
                    f"| {c.node_sends / 1e3:.1f} | {c.node_gets / 1e3:.1f} | {c.node_keys:.2f} "
                    f"| {c.node_masks:.2f} | {c.sums:.2f} | {c.unmasking:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
