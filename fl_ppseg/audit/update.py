"""Real messages for the coordinator's attacks: an owner, its node and one round, all in a folder
that is thrown away.

The vault encrypts the scenes as an arm wants it and prepares the private embedding where there is
one; the request goes through Flower's messages to the ClientApp, and what comes back is handed over
as a coordinator has it. What the images were is returned apart, for the scores alone.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Context, Message, MessageType, RecordDict

from clients.client_app import app
from clients.policy import NodePolicy, save_policy
from clients.vault import Assignment, agreed, prepare_shards, shared_subkey
from fl_ppseg.adaptation import adapted_embedding
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.classes import ClassTable
from fl_ppseg.config import ArmConfig, Config, arms_of
from fl_ppseg.dataset import Scene
from fl_ppseg.engines.in_process import InProcessGrid
from fl_ppseg.errors import RunError
from fl_ppseg.initial_weights import model_settings
from fl_ppseg.messages import Arrays, Reply, Request, pack_request, unpack_reply
from fl_ppseg.setr.names import EMBEDDING_TENSORS, withheld
from fl_ppseg.shard import open_shard

Images = npt.NDArray[np.uint8]

_PLAIN: Final = ArmConfig(note="the images themselves, to compare guesses with")
_TRUTH: Final = "truth"
_RUN: Final = "audit"


@dataclass(frozen=True, eq=False)
class Truth:
    """What the client's training met, which no adversary is given; one view an image."""

    plain: Images = field(repr=False)
    """(n, 3, H, W), what the owner encrypted."""
    stored: Images = field(repr=False)
    """(n, 3, H, W), what the model's input was: ciphertext, or plain again."""
    labels: Images = field(repr=False)
    """(n, H, W) trainIds."""


class _Node(InProcessGrid):
    """A grid of one node that is started with a policy, as a SuperNode is."""

    def __init__(self, policy: Path) -> None:
        self._policy = str(policy)
        super().__init__(app, 1)

    def _context(self, partition_id: int, num_nodes: int) -> Context:
        usual = super()._context(partition_id, num_nodes)
        return Context(usual.run_id, usual.node_id, {"policy": self._policy}, RecordDict(), {})


def overhear(
    config: Config,
    arm: str,
    weights: Arrays,
    scenes: Sequence[Scene],
    *,
    round: int = 1,
    seed: int = 0,
) -> tuple[Exchange, Truth]:
    """Train one round on one client's scenes and keep what its coordinator sees.

    Batch size, epochs and optimiser are those of `config.training`; there is one view an image, so
    that every epoch meets the same ones.

    Args:
        config: Experiment with the arm; sections data, model, training and federation count.
        arm: Id of the arm.
        weights: Global weights of the arm's model before the round.
        scenes: The client's images, one city.
        round: Number of the round, from 1.
        seed: Seed of the run: the order of the images.

    Raises:
        InputError: As `prepare_shards`, or the arm and the model do not fit.
        RunError: The client refused, or failed.
    """
    protection = arms_of(config)[arm]
    with tempfile.TemporaryDirectory(prefix="fl_ppseg-audit-") as place:
        if protection.embedding == "adapted":  # published, to the key that all owners share
            weights = weights | _adapted(weights, protection, Path(place))
        request = _request(config, arm, protection, weights, scenes[0].classes, round, seed)
        policy, truth = _owner(Path(place), config, request, protection, scenes)
        reply = _answer(_Node(policy), request)
    exchange = Exchange(
        sent=weights,
        returned=reply.arrays,
        model=request.model,
        training=request.training,
        num_classes=request.num_classes,
        image_size=config.data.image_size,
        round=round,
        num_rounds=request.num_rounds,
        num_examples=reply.num_examples,
    )
    return exchange, truth


def _request(
    config: Config,
    arm: str,
    protection: ArmConfig,
    weights: Arrays,
    classes: ClassTable,
    round: int,
    seed: int,
) -> Request:
    return Request(
        task="train",
        run_id=_RUN,
        round=round,
        num_rounds=max(round, config.federation.num_rounds),
        arm=arm,
        seed=seed,
        embedding=protection.embedding,
        num_classes=classes.num_classes,
        model=model_settings(config.model, arm, protection),
        training=config.training,
        arrays=weights,
    )


def _adapted(weights: Arrays, protection: ArmConfig, vault_dir: Path) -> Arrays:
    """The embedding adapted to the shared key of these vaults."""
    public = {name: torch.from_numpy(weights[name]) for name in EMBEDDING_TENSORS}
    key = shared_subkey(vault_dir, protection)
    adapted = adapted_embedding(public, protection.cipher, protection.block_scope, key)
    return {name: value.numpy() for name, value in adapted.items()}


def _owner(
    place: Path, config: Config, request: Request, protection: ArmConfig, scenes: Sequence[Scene]
) -> tuple[Path, Truth]:
    """Vault, shards and policy of the owner; what was encrypted is looked up beside it."""
    city, seed = scenes[0].city, request.seed
    kernel = {name: request.arrays[name] for name in EMBEDDING_TENSORS}
    job = Assignment(
        vault=place / city,
        city=city,
        train=tuple(scenes),
        heldout=(),
        data=config.data.model_copy(update={"num_views": 1}),
        block_size=kernel[EMBEDDING_TENSORS[0]].shape[-1],
        seed=seed,
        protections={request.arm: protection, _TRUTH: _PLAIN},
        public=kernel,
        run=_RUN,
        rounds={request.arm: request.round - 1},
    )
    prepared = prepare_shards(job)
    made = {seed: prepared[request.arm]}
    arms = {request.arm: agreed(protection, made, request.training, request.num_rounds)}
    policy = place / "policy.yaml"
    save_policy(NodePolicy(city=city, role="train", arms=arms), policy)
    everything = range(len(scenes)), [0] * len(scenes)
    plain, labels = open_shard([prepared[_TRUTH].shard]).batch(*everything)
    stored, _ = open_shard([prepared[request.arm].shard]).batch(*everything)
    return policy, Truth(plain, stored, labels)


def _answer(node: _Node, request: Request) -> Reply:
    (node_id,) = node.get_node_ids()
    message = Message(pack_request(request), node_id, MessageType.TRAIN)
    (answer,) = node.send_and_receive([message])
    if answer.has_error():
        raise RunError(f"no update to attack: {answer.error.reason}")
    return unpack_reply(answer.content, request.arrays.keys() - withheld(request.embedding))
