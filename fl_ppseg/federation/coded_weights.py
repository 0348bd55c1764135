"""Weights on their way to nodes, in a code (`training.weights_codec`): changes since round 0.

Owners have the weights of round 0, so a node needs nothing else to decode a request; a code names
them by their hash, since changes of others would give other weights without a sign. The
coordinator goes on from what nodes decode, not from what it coded: training, scores, checkpoints
and sums are of the same weights everywhere, to the bit. What a code lost it adds to the weights of
the next round (error feedback on the coordinator's side: Tang et al. 2019, DoubleSqueeze).

Tensors that are as in round 0 do not travel: all of them before round 2, and those that an arm
never trains. A node takes its own copy of them, and then compares the whole with the hash of the
coordinator's weights, so that no part gets lost or changed on the way. A tensor that is left out
says what a change of 0 would say, and is held to the same bounds.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from fl_ppseg.codecs.tensors import CodecError
from fl_ppseg.codecs.update import SEPARATOR, UpdateCodec, weights_codec_of
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.message_content import Request
from fl_ppseg.federation.messages import MessageError
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays, hash_of

ORIGIN: Final = "origin"
LOST: Final = "lost"
PARTS: Final = "parts"
ORIGIN_HASH: Final = SEPARATOR + "origin"
"""Name of the part that holds the SHA-256 of the weights of round 0, (32,) uint8."""
WEIGHTS_HASH: Final = SEPARATOR + "weights"
"""Name of the part that holds the SHA-256 of the weights that a node must come to, (32,) uint8."""
_STATE: Final = (ORIGIN, LOST, PARTS)
"""In a checkpoint, beside the moments of the server's optimiser: the weights of round 0, what the
newest code lost, and that code."""


class CodedWeights:
    """The coordinator's side: what it hands out, and what it goes on from.

    Args:
        training: Names the codec.
        start: The checkpoint to go on from.
    """

    def __init__(self, training: TrainingConfig, start: Checkpoint) -> None:
        self._codec = weights_codec_of(training)
        if self._codec.is_exact:
            return  # and holds no weights
        state = {name: dict(start.optimizer.get(name, {})) for name in _STATE}
        self._origin = state[ORIGIN] or dict(start.arrays)
        self._lost = state[LOST]
        trained = {n: v for n, v in self._origin.items() if not is_buffer(n)}
        self._origin_hash = _hash(trained)
        self._parts = state[PARTS] or self._codec.pack(start.arrays, self._origin, {})[0]
        self._decoded()

    def encode(self, weights: Arrays) -> Arrays:
        """Code the weights after a round; returns them as nodes decode them."""
        if self._codec.is_exact:
            return weights
        self._parts, self._lost = self._codec.pack(weights, self._origin, self._lost)
        return self._decoded()

    def sent(self, weights: Arrays) -> Arrays:
        """What travels of the newest weights that `encode` returned."""
        return weights if self._codec.is_exact else self._sent

    def _decoded(self) -> Arrays:
        """Decode the newest code, and choose what of it is sent."""
        decoded = self._codec.unpack(self._parts, self._origin)
        own = self._origin
        still = {n for n in own if not is_buffer(n) and np.array_equal(decoded[n], own[n])}
        decoded |= {name: own[name] for name in still}  # -0.0 equals 0.0, and has other bits
        self._sent = {n: v for n, v in self._parts.items() if _tensor_of(n) not in still}
        self._sent |= {ORIGIN_HASH: self._origin_hash, WEIGHTS_HASH: _hash(decoded)}
        return decoded

    @property
    def state(self) -> dict[str, Arrays]:
        """All that is needed to go on, for a checkpoint."""
        if self._codec.is_exact:
            return {}
        return {ORIGIN: self._origin, LOST: self._lost, PARTS: self._parts}


def moments_of(optimizer: Mapping[str, Arrays]) -> dict[str, Arrays]:
    """The moments of the server's optimiser, of what a checkpoint holds beside weights."""
    return {name: dict(arrays) for name, arrays in optimizer.items() if name not in _STATE}


def decoded(request: Request, origin: Mapping[str, np.ndarray], digest: str) -> Request:
    """A request with its weights in place of their code.

    Args:
        request: As it came; its `training` names the codec.
        origin: The owner's weights of round 0: trained tensors, no statistics.
        digest: `hash_of` them.

    Raises:
        MessageError: The code is not one of changes of these weights.
    """
    codec: UpdateCodec = weights_codec_of(request.training)
    found = dict(request.arrays)
    named, wanted = (found.pop(name, np.zeros(0)) for name in (ORIGIN_HASH, WEIGHTS_HASH))
    if named.dtype != np.uint8 or named.tobytes().hex() != digest:
        raise MessageError(
            "the weights are changes since other weights of round 0 than this node's owner has"
        )
    parts = {name: value for name, value in found.items() if SEPARATOR in name}
    others = {name: value for name, value in found.items() if SEPARATOR not in name}
    moved = {name: origin[name] for name in map(_tensor_of, parts) if name in origin}
    if parts.keys() != codec.layout(moved).keys() or others.keys() & origin.keys():
        raise MessageError("expected changes of trained weights since round 0, each of them whole")
    try:
        arrays = others | dict(origin) | codec.unpack(parts, moved)
    except CodecError as error:
        raise MessageError(str(error)) from None
    if wanted.dtype != np.uint8 or not np.array_equal(wanted, _hash(arrays)):
        raise MessageError("the changes do not lead to the weights that the coordinator has")
    return replace(request, arrays=arrays)


def _tensor_of(part: str) -> str:
    """The name of the tensor that a part is of."""
    return part.partition(SEPARATOR)[0]


def _hash(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(32,) uint8, the SHA-256 of weights."""
    return np.frombuffer(bytes.fromhex(hash_of(arrays)), np.uint8)
