"""Real messages for the coordinator's attacks: an owner, its node and its rounds, in a temporary
folder.

The vault encrypts the scenes as the arm says and prepares its private embedding if it has one; the
request goes through Flower's messages to the ClientApp, and its reply is returned as a coordinator
receives it. The true images are returned separately, only for scoring.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from clients.policy.ledger import make_ledger
from clients.policy.node_policy import ArmPolicy, NodePolicy, load_policy, save_policy
from clients.policy.start_weights import START, write_start
from clients.vault.assignment import Assignment
from clients.vault.consent.terms import largest_elsewhere, terms_of
from clients.vault.keys.keyring import ensure_shared_subkey
from clients.vault.node_folders.policies import arm_policy
from clients.vault.shards.preparation import prepare_shards
from fl_ppseg.audit.exchange import Exchange
from fl_ppseg.audit.node import Node
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.loading import arms_of, config_for
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.adaptation import adapted_embedding
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.dataset import Scene
from fl_ppseg.data.shard import open_shard
from fl_ppseg.federation.message_content import Request
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.arrays import Arrays
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.files import make_private_folder

Images = npt.NDArray[np.uint8]

_PLAIN: Final = ArmConfig(note="the images themselves, to compare guesses with")
_TRUTH: Final = "truth"
_HOMES: Final = ".homes"
"""Folder of what nodes keep, beside the vaults; no client is named so."""
_RUN: Final = "audit"


@dataclass(frozen=True, eq=False)
class Truth:
    """True images and label maps of a client, not given to adversaries; one view per image."""

    plain: Images = field(repr=False)
    """(n, 3, H, W), the plain images."""
    stored: Images = field(repr=False)
    """(n, 3, H, W), the model's input: ciphertexts, or the plain images."""
    labels: Images = field(repr=False)
    """(n, H, W) trainIds."""
    heldout: tuple[Images, ...] = field(default=(), repr=False)
    """(h, w) trainIds each, the label maps of its held-out images."""


class Trainer(ABC):
    """One client or several, that train a round with the weights that a coordinator sends."""

    @abstractmethod
    def trained(self, weights: Arrays, round: int = 1, **other: Any) -> Exchange | str:
        """What the coordinator learns of a round, or the reason of a refusal."""

    def answer(self, weights: Arrays, round: int = 1) -> Exchange:
        """Train a round and keep what the coordinator sees.

        Args:
            weights: Global weights of the arm's model before the round.
            round: Number of the round, from 1.

        Raises:
            InputError: The arm and the model do not fit.
            RunError: A client refused, or failed.
        """
        exchange = self.trained(weights, round)
        if isinstance(exchange, str):
            raise RunError(f"no update to attack: {exchange}")
        return exchange


class Client(Trainer):
    """An owner with its node, prepared once, whose node answers requests to train and to evaluate.

    Args:
        config: Experiment with the arm; sections data, model, training and federation count.
        arm: Id of the arm.
        embedding: The public patch embedding, `EMBEDDING_TENSORS`; an adapted one is made from it.
        scenes: The client's images, of one city.
        place: Folder for vault, keys and shards, plain ones too; the caller removes it.
        seed: Seed of the run: the order of the images.
        heldout: Further images of the same client, to evaluate on.
        start: The weights of round 0, from which the node measures its trust region; None: no
            trust region.
        num_trained: Training images that the region is computed for; None: the client's own.
        name: Of the client; None: the city of its images. Others in the same place have others.

    Raises:
        InputError: As `prepare_shards`.
    """

    def __init__(
        self,
        config: Config,
        arm: str,
        embedding: Arrays,
        scenes: Sequence[Scene],
        place: Path,
        seed: int = 0,
        heldout: Sequence[Scene] = (),
        start: Arrays | None = None,
        num_trained: int | None = None,
        name: str | None = None,
    ) -> None:
        self._num_trained = num_trained or len(scenes)
        whole = config.training.model_copy(update={"weights_codec": "fp32"})  # codes only round
        self._config = config.model_copy(update={"training": whole})
        self._arm, self._seed = arm, seed
        self.name = name or scenes[0].city
        self._classes, self._protection = scenes[0].classes, arms_of(config)[arm]
        kernel = {name: embedding[name] for name in EMBEDDING_TENSORS}
        self._adapted: Arrays = {}
        if self._protection.embedding == "adapted":  # published, to the key that all owners share
            self._adapted = kernel = _adapted(kernel, self._protection, place)
        settings = model_settings(config.model, arm, self._protection)
        patch_size = kernel[EMBEDDING_TENSORS[0]].shape[-1]
        self._model = settings.model_copy(update={"patch_size": patch_size})
        self.policy, self.truth = self._prepared(kernel, scenes, heldout, place, start)
        self._node = Node(self.policy)
        self._accepted: dict[int, Arrays] = {}

    @property
    def agreed_policy(self) -> ArmPolicy:
        """What the owner agreed to for the arm, which its coordinator knows."""
        return load_policy(self.policy).arms[self._arm]

    def accepted_before(self, num_rounds: int) -> tuple[int, Arrays] | None:
        """The newest weights of an earlier round than this that the node accepted, and their round;
        None if there are none."""
        number = max((each for each in self._accepted if each < num_rounds), default=None)
        return None if number is None else (number, self._accepted[number])

    def trained(self, weights: Arrays, round: int = 1, **other: Any) -> Exchange | str:
        """Train a round and keep what the coordinator sees.

        Args:
            weights: Of the arm's model, or of the one in `other`.
            round: Number of the round, from 1.
            other: Fields of the request that differ from what was agreed to.

        Returns:
            The exchange; or the reason of the node's refusal.
        """
        arrays = weights if "model" in other else weights | self._adapted
        request = replace(self._request(arrays, round), **other)
        reply = self._node.answer(request)
        if isinstance(reply, str):
            return reply
        self._accepted[round - 1] = request.arrays
        return Exchange(
            sent=request.arrays,
            returned=reply.arrays,
            model=request.model,
            training=request.training,
            num_classes=request.num_classes,
            image_size=self._config.data.image_size,
            round=round,
            num_rounds=request.num_rounds,
            num_examples=reply.num_examples,
        )

    def counts(self, weights: Arrays, round: int = 1, **other: Any) -> npt.NDArray[np.int64] | str:
        """Have the node evaluate weights on the held-out images.

        Args:
            weights: Of the arm's model, or of the one in `other`.
            round: Number of the round, from 1.
            other: Fields of the request that differ from what was agreed to.

        Returns:
            (C, C) confusion counts, rows = truth; or the reason of the node's refusal.
        """
        arrays = weights if "model" in other else weights | self._adapted
        request = replace(self._request(arrays, round), task="evaluate", **other)
        reply = self._node.answer(request)
        if isinstance(reply, str):
            return reply
        self._accepted[round] = request.arrays
        assert reply.confusion is not None
        return reply.confusion

    def _request(self, weights: Arrays, round: int) -> Request:
        return Request(
            task="train",
            run_id=_RUN,
            round=round,
            num_rounds=self._config.federation.num_rounds,
            arm=self._arm,
            seed=self._seed,
            embedding=self._protection.embedding,
            num_classes=self._classes.num_classes,
            model=self._model,
            training=config_for(self._config, self._protection).training,
            arrays=weights,
        )

    def _prepared(
        self,
        kernel: Arrays,
        scenes: Sequence[Scene],
        heldout: Sequence[Scene],
        place: Path,
        start: Arrays | None,
    ) -> tuple[Path, Truth]:
        """Prepare vault, shards and policy of the owner; read the true images, not as frames."""
        arm, seed, config = self._arm, self._seed, self._config
        job = Assignment(
            vault=place / self.name,
            client=self.name,
            train=tuple(scenes),
            heldout=tuple(heldout),
            data=config.data.model_copy(update={"num_views": 1, "frame_size": None}),
            block_size=kernel[EMBEDDING_TENSORS[0]].shape[-1],
            seed=seed,
            protections={arm: self._protection, _TRUTH: _PLAIN},
            public=kernel,
            run=_RUN,
        )
        prepared = prepare_shards(job)
        largest = largest_elsewhere(self._num_trained)
        num_classes, size = self._classes.num_classes, job.block_size
        terms = terms_of(config, arm, self._protection, num_classes, size, "train", largest)
        starts, nodes = {}, make_private_folder(place / _HOMES)
        home = make_private_folder(nodes / self.name)
        if start is None:
            terms = terms._replace(max_change=None)
        else:
            starts = {seed: write_start(make_private_folder(home / START), start)}
        arms = {arm: arm_policy(self._protection, {seed: prepared[arm]}, terms, starts)}
        policy = home / "policy.yaml"
        make_ledger(make_private_folder(home / "state"))
        save_policy(NodePolicy(client=job.client, role="train", arms=arms), policy)
        everything = range(len(scenes)), [0] * len(scenes)
        plain, labels = open_shard([prepared[_TRUTH].shard]).batch(*everything)
        stored, _ = open_shard([prepared[arm].shard]).batch(*everything)
        maps = (labels for _, labels in open_shard([prepared[_TRUTH].shard]).heldout())
        return policy, Truth(plain, stored, labels, tuple(np.array(each) for each in maps))


@contextmanager
def client(
    config: Config,
    arm: str,
    embedding: Arrays,
    scenes: Sequence[Scene],
    *,
    seed: int = 0,
    heldout: Sequence[Scene] = (),
    start: Arrays | None = None,
    num_trained: int | None = None,
) -> Iterator[Client]:
    """A `Client` in a temporary folder; arguments and errors as there."""
    with tempfile.TemporaryDirectory(prefix="fl_ppseg-audit-") as place:
        folder = Path(place)
        yield Client(config, arm, embedding, scenes, folder, seed, heldout, start, num_trained)


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

    Batch size, epochs and optimiser are those of `config.training`, with one view per image, so
    that every epoch has the same images. Arguments and errors as in `Client` and `Client.answer`.
    """
    with client(config, arm, weights, scenes, seed=seed) as owner:
        return owner.answer(weights, round), owner.truth


def _adapted(kernel: Arrays, protection: ArmConfig, vault_dir: Path) -> Arrays:
    """The embedding adapted to the shared key of these vaults."""
    public = {name: torch.from_numpy(value) for name, value in kernel.items()}
    key = ensure_shared_subkey(vault_dir, protection)
    adapted = adapted_embedding(public, protection.cipher, protection.block_scope, key)
    return {name: value.numpy() for name, value in adapted.items()}
