"""A naive or PUP head that passes on the codes in tokens, for `label_oracle`."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays

Channels = npt.NDArray[np.int64]

_FAINT: Final = 0.01
"""Factor of the head's normalisations, small enough for ReLU to pass all values."""
_LOUDEST: Final = 0.2
"""The same if the pilot keeps values below 5: float32 sums of larger values lose digits."""
_RAISED: Final = 4.0
"""Offset of the number before the last ReLU; the number is a fraction of 1."""


def pass_on(made: Arrays, network: SETR, pairs: Sequence[Channels], code: Channels) -> None:
    """Make every convolution of the head copy its channels.

    Args:
        made: Weights, changed in place.
        network: A model of their architecture.
        pairs: Pairs of channels of a token; the first channels of the head hold half of each
            difference, scaled to a fraction of 1 in the first.
        code: Further channels of a token, copied to the head's next channels.
    """
    number = 1
    while (name := f"decoder.stages.conv{number}.conv.weight") in made:
        weight = made[name]
        weight[...] = 0
        middle = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
        if number == 1:
            for row, (plus, minus) in enumerate(pairs):
                middle[row, [plus, minus]] = 0.5, -0.5
            middle[len(pairs) + np.arange(len(code)), code] = 1
        else:
            same = np.arange(len(pairs) + len(code))
            middle[same, same] = 1
        _normalise(made, network, number)
        number += 1


def _normalise(made: Arrays, network: SETR, number: int) -> None:
    """Make the normalisation after a convolution only rescale, so that ReLU passes all."""
    stage = f"decoder.stages.conv{number}.norm"
    weight, bias = made[f"{stage}.weight"], made[f"{stage}.bias"]
    norm = network.get_submodule(stage)
    given, constant = 1.0, 0.0
    if isinstance(norm, nn.GroupNorm):
        weight[...], bias[...] = _FAINT, 1
        weight[: len(weight) // norm.num_groups] = _LOUDEST  # the group of the pilot
    else:
        made[f"{stage}.running_mean"][...] = 0
        made[f"{stage}.running_var"][...] = 1
        weight[...], bias[...] = (_FAINT, 1) if number == 1 else (1, 0)
        given, constant = (1.0, 0.0) if number == 1 else (1 / _FAINT, -1 / _FAINT)
    if f"decoder.stages.conv{number + 1}.conv.weight" not in made:  # the last
        weight[0], bias[0] = given, _RAISED + constant
