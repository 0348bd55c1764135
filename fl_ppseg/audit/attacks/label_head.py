"""A head that passes on what codes in tokens say, for `label_oracle`: naive or PUP."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import nn

from fl_ppseg.setr.model import SETR
from fl_ppseg.system.arrays import Arrays

Channels = npt.NDArray[np.int64]

_FAINT: Final = 0.01
"""Factor of the heads' normalisations, so that ReLU lets all pass."""
_LOUDEST: Final = 0.2
"""The same where the pilot keeps values below 5: sums of values far from 0 lose digits."""
_RAISED: Final = 4.0
"""What is added to the number before the last ReLU; it is a fraction of 1."""


def pass_on(made: Arrays, network: SETR, pairs: Sequence[Channels], code: Channels) -> None:
    """Every convolution of the head copies its channels.

    Args:
        made: Weights, changed in place.
        network: Of their architecture.
        pairs: Two channels of a token each; the first channels of the head hold half of their
            differences, the very first a fraction of 1.
        code: Further channels of a token; those of the head after them hold these.
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
    """The normalisation after a convolution changes scales only, and ReLU lets all pass."""
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
