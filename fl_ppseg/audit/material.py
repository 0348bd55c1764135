"""What each adversary holds of an arm: the audit plays one owner, with ephemeral keys.

The owner is the training client with the most images. Some of its images are the targets; images of
other clients are the public images. No vault is opened and no owner's key is used: the attacked
ciphertexts are of the same cipher under ephemeral keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fl_ppseg.audit.attacks.undoing import Algorithm, Moves
from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.data import DataConfig
from fl_ppseg.crypto.adaptation import SignedPermutation, adapt, linear_form_of
from fl_ppseg.crypto.ciphers.cipher import Effect
from fl_ppseg.crypto.ciphers.invariance import invariant_form, surviving_form
from fl_ppseg.crypto.ciphers.registry import get_cipher
from fl_ppseg.data.dataset import Dataset, Scene
from fl_ppseg.data.views import fit
from fl_ppseg.leaks.scores import Images
from fl_ppseg.query.ephemeral import Query, ephemeral_query
from fl_ppseg.setr.names import EMBEDDING_TENSORS
from fl_ppseg.system.errors import InputError

Labels = npt.NDArray[np.uint8]
"""(n, H, W) uint8 trainIds, 255 ignored."""
Embedding = npt.NDArray[np.float32]
Encrypt = Callable[[Images], Images]
NUM_PAIRS = 2
"""Images of the owner that an adversary with known plaintext has in plain and encrypted."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """The images of an audit, at the model's size; the same for every arm."""

    client: str
    """The client under attack."""
    targets: Images
    """(n, 3, H, W), the targets."""
    labels: Labels
    """Their label maps."""
    sources: tuple[Scene, ...]
    """Their scenes in the data set."""
    others: Images
    """The owner's further images."""
    public: Images
    """Public images, of other clients."""
    public_labels: Labels


@dataclass(frozen=True, eq=False)
class Holdings:
    """What the owner of an arm made; `plan` says which adversary holds what of it."""

    arm: str
    protection: ArmConfig
    block_size: int
    form: str | None
    """Canonical form of the cipher that an embedding can read; None for plain images, or if it has
    none."""
    survives: str | None
    """The finest known form that survives the cipher; None as for `form`."""
    ciphertexts: Images
    """The targets, encrypted."""
    labels: Labels
    """Their label maps, as a training node stores them."""
    shard: Images
    """All images of the owner, encrypted, the targets first."""
    pairs: tuple[Images, Images]
    """A few of the owner's other images, plain and encrypted."""
    owner: Query = field(repr=False)
    """The owner's encryption."""
    public_embedding: Embedding
    """(D, 3, M, M), of round 0 of a model that reads plain images."""
    embedding: Embedding | None = field(repr=False)
    """The embedding adapted to the owner's key, if the arm has one; key material."""
    key: SignedPermutation | None = field(repr=False)
    """Effect of the key on every block, if it is the same for all blocks and linear."""

    @property
    def is_encrypted(self) -> bool:
        """Whether the training images are encrypted."""
        return self.protection.cipher is not None and self.protection.encrypted == "all"

    @property
    def reuses_key(self) -> bool:
        """Whether one key serves several images."""
        return self.is_encrypted and self.protection.key_mode in ("shared", "per-client")

    @property
    def algorithm(self) -> Algorithm:
        """What the cipher may do, which is public."""
        effects = get_cipher(self.protection.cipher or "").effects
        moves: Moves = "pixels" if Effect.MOVES_PIXELS in effects else "nothing"
        if effects & (Effect.MOVES_VALUES | Effect.PERMUTES_CHANNELS):
            moves = "values"
        inverts, substitutes = (
            effect in effects for effect in (Effect.INVERTS_VALUES, Effect.SUBSTITUTES_VALUES)
        )
        return Algorithm(moves, inverts, substitutes)

    @property
    def own_encryption(self) -> Encrypt:
        """The same cipher with the adversary's own keys, a new one per image; picklable."""
        return partial(encrypted_apart, protection=self.protection, block_size=self.block_size)

    @property
    def shows_tokens_of(self) -> Literal["images", "ciphertexts"]:
        """What the arm's tokens tell to somebody with the public embedding: a private or adapted
        one makes those of the plain images of ciphertexts."""
        told = self.is_encrypted and self.protection.embedding in ("uploaded", "invariant")
        return "ciphertexts" if told else "images"

    def as_read(self, images: Images) -> Images:
        """(n, 3, H, W) public images -> images with tokens like those of the arm."""
        return self.own_encryption(images) if self.shows_tokens_of == "ciphertexts" else images

    def encrypt(self, images: Images) -> Images:
        """(n, 3, H, W) under the owner's key: an oracle."""
        return np.stack([self.owner.encrypt(image) for image in images])


def read_scenes(dataset: Dataset, data: DataConfig, num_targets: int, num_public: int) -> Scenes:
    """Choose and read the images of an audit.

    Args:
        dataset: A tree with a split `train` of at least two clients.
        data: Size and fit of the images.
        num_targets: Images to reconstruct, evenly spaced among those of the largest client.
        num_public: Images of other clients, evenly spaced.

    Raises:
        InputError: Too few clients or images, or an image cannot be read.
    """
    clients = dataset.split("train")
    client = max(clients, key=lambda name: (len(clients[name]), name))
    own = list(clients[client])
    elsewhere = [scene for name, scenes in clients.items() if name != client for scene in scenes]
    if len(own) < num_targets + NUM_PAIRS or not elsewhere:
        raise InputError(
            f"{dataset.root}: an audit of {num_targets} images needs a training client of "
            f"{num_targets + NUM_PAIRS} images or more and another client; give fewer --targets "
            "or more data"
        )
    chosen = _evenly(len(own), num_targets)
    targets = [own[k] for k in chosen]
    others = [scene for scene in own if scene not in targets]
    public = [elsewhere[k] for k in _evenly(len(elsewhere), min(num_public, len(elsewhere)))]
    images, labels = _read(targets, data)
    return Scenes(
        client, images, labels, tuple(targets), _read(others, data)[0], *_read(public, data)
    )


def holdings(
    arm: str,
    protection: ArmConfig,
    scenes: Scenes,
    public_weights: Mapping[str, Tensor],
    block_size: int,
) -> Holdings:
    """Play the owner of an arm: make a key, encrypt its images, adapt its embedding.

    Args:
        arm: Its id.
        protection: Its settings.
        scenes: The images.
        public_weights: Weights of a model that reads plain images, `EMBEDDING_TENSORS` among them.
        block_size: Side of a cipher block in pixels.

    Raises:
        InputError: The cipher does not fit.
    """
    owner = ephemeral_query(protection, block_size, public_weights)
    is_encrypted = protection.cipher is not None and protection.encrypted == "all"
    shard, labels = np.concatenate([scenes.targets, scenes.others]), scenes.labels
    num_targets = len(scenes.targets)
    if is_encrypted:
        stored = [owner.encrypt_keeping_order(image) for image in shard]
        shard = np.stack([ciphertext for ciphertext, _ in stored])
        labels = np.stack(
            [
                each if order is None else order.permuted(each)
                for each, (_, order) in zip(labels, stored[:num_targets], strict=True)
            ]
        )
    is_common = protection.block_scope == "common" and protection.key_mode != "per-image"
    key = linear_form_of(owner.encrypt, block_size) if is_encrypted and is_common else None
    public = public_weights[EMBEDDING_TENSORS[0]]
    own = None if owner.embedding is None else owner.embedding[EMBEDDING_TENSORS[0]]
    if protection.embedding == "adapted" and key is not None:
        own = adapt(public, key)
    return Holdings(
        arm=arm,
        protection=protection,
        block_size=block_size,
        form=invariant_form(protection.cipher) if protection.cipher and is_encrypted else None,
        survives=surviving_form(protection.cipher) if protection.cipher and is_encrypted else None,
        ciphertexts=shard[:num_targets],
        labels=labels,
        shard=shard,
        pairs=(scenes.others[:NUM_PAIRS], shard[num_targets : num_targets + NUM_PAIRS]),
        owner=owner,
        public_embedding=public.numpy(),
        embedding=None if own is None else own.numpy(),
        key=key,
    )


def encrypted_apart(images: Images, protection: ArmConfig, block_size: int) -> Images:
    """(n, 3, H, W) -> the same encrypted as in an arm, each image under another owner's key."""
    plain = protection.model_copy(update={"embedding": "uploaded"})  # no embedding is needed here
    return np.stack([ephemeral_query(plain, block_size, {}).encrypt(image) for image in images])


def _read(scenes: Sequence[Scene], data: DataConfig) -> tuple[Images, Labels]:
    fitted = [fit(*scene.load(), data.image_size, data.fit) for scene in scenes]
    return np.stack([image for image, _ in fitted]), np.stack([labels for _, labels in fitted])


def _evenly(total: int, number: int) -> list[int]:
    """`number` places of `total`, evenly spaced.

    >>> _evenly(10, 3)
    [1, 5, 8]
    """
    return [(2 * k + 1) * total // (2 * number) for k in range(number)]
