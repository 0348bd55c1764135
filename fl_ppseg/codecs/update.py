"""Codecs of a whole update, by the name that `training.codec` gives them.

With any but `fp32` a node sends the change of each tensor, coded; what the code lost it adds to the
change of its next update (error feedback: Seide et al. 2014; Karimireddy et al. 2019, algorithm 2).
The coordinator adds the decoded change to the weights that it sent, so that norms, robust
aggregation and noise see weights, whatever the codec.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from fl_ppseg.codecs.low_rank import LowRank
from fl_ppseg.codecs.tensors import (
    BFloat16,
    CodecError,
    Int8,
    Layout,
    TensorCodec,
    TopK,
)
from fl_ppseg.setr.names import is_buffer
from fl_ppseg.system.arrays import Arrays

if TYPE_CHECKING:
    from fl_ppseg.config.sections import TrainingConfig

SEPARATOR: Final = ":"
"""Between the name of a tensor and what a part holds; no tensor's name has one."""
ROUNDED_UP: Final = 2.0**-23
"""The most that a code adds to the largest change of a tensor, as a share of it: the rounding of a
scale to float32."""


class UpdateCodec:
    """A codec of updates: weights after training -> parts -> weights.

    Args:
        tensor: Codec of the change of a tensor; None: weights travel as they are.
    """

    def __init__(self, tensor: TensorCodec | None) -> None:
        self._tensor = tensor

    @property
    def is_exact(self) -> bool:
        """Whether nothing is lost."""
        return self._tensor is None

    def layout(self, start: Mapping[str, np.ndarray]) -> dict[str, Layout]:
        """What the parts of an update of weights like `start` must look like, by name."""
        found = {}
        for name, value in start.items():
            if not self._is_coded(name, value):
                found[name] = Layout(value.shape, value.dtype)
                continue
            assert self._tensor is not None
            for part, layout in self._tensor.layout(value.shape).items():
                found[name + SEPARATOR + part] = layout
        return found

    def pack(
        self,
        weights: Arrays,
        start: Mapping[str, np.ndarray],
        residual: Mapping[str, np.ndarray],
        bounds: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Arrays, Arrays]:
        """Code an update.

        Args:
            weights: After training.
            start: As they were sent; may hold more.
            residual: What earlier codes lost, float32, by name; none: nothing yet.
            bounds: The most that a round moves each weight: what is lost adds up over rounds, and
                would otherwise come at once, further than honest training moves weights.

        Returns:
            The parts, and the residual after this code: float32, of the coded tensors.
        """
        parts: Arrays = {}
        lost: Arrays = {}
        for name, value in weights.items():
            if not self._is_coded(name, value):
                parts[name] = value
                continue
            assert self._tensor is not None
            change = value.astype(np.float64) - start[name]
            if name in residual:
                change = change + residual[name]
            # one bound for all that may have a scale in common
            most = np.inf if bounds is None else bounds[name].min(initial=np.inf) * (1 - ROUNDED_UP)
            coded = self._tensor.encode(np.asarray(np.clip(change, -most, most)))
            left = change - self._tensor.decode(coded, change.shape)
            lost[name] = left.astype(np.float32)
            parts |= {name + SEPARATOR + part: array for part, array in coded.items()}
        return parts, lost

    def unpack(self, parts: Arrays, start: Mapping[str, np.ndarray]) -> Arrays:
        """Decode an update.

        Args:
            parts: As they arrived, with the names of `layout`.
            start: The weights that were sent, those of the update alone.

        Raises:
            CodecError: A part is of another shape or dtype, or holds what no code is.
        """
        if self.is_exact:
            return parts
        for part, layout in self.layout(start).items():
            if (parts[part].shape, parts[part].dtype) != layout:
                raise CodecError(f"{part}: expected {layout.dtype} of shape {layout.shape}")
        return {
            name: self._decoded(parts, name, value) if self._is_coded(name, value) else parts[name]
            for name, value in start.items()
        }

    def _decoded(self, parts: Arrays, name: str, start: np.ndarray) -> np.ndarray:
        assert self._tensor is not None
        own = {part: parts[name + SEPARATOR + part] for part in self._tensor.layout(start.shape)}
        try:
            change = self._tensor.decode(own, start.shape)
        except CodecError as error:
            raise CodecError(f"{name}: {error}") from None
        return np.asarray(start + change, start.dtype)

    def _is_coded(self, name: str, value: np.ndarray) -> bool:
        """Trained weights alone: a rounded variance of batch normalisation could be negative."""
        is_trained = np.issubdtype(value.dtype, np.floating) and not is_buffer(name)
        return self._tensor is not None and is_trained


def weights_codec_of(training: "TrainingConfig") -> UpdateCodec:
    """The codec of weights on their way to nodes, which a section `training` names."""
    return UpdateCodec(Int8() if training.weights_codec == "int8" else None)


def codec_of(training: "TrainingConfig") -> UpdateCodec:
    """The codec of updates that a section `training` names."""
    match training.codec:
        case "bf16":
            return UpdateCodec(BFloat16())
        case "int8":
            return UpdateCodec(Int8())
        case "top-k":
            return UpdateCodec(TopK(training.codec_density))
        case "low-rank":
            return UpdateCodec(LowRank(training.codec_rank))
    return UpdateCodec(None)
