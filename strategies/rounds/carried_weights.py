"""The global weights of an arm as they travel to its nodes: in memory once.

Flower's loop carries a record of the weights from round to round, and keeps the one that it starts
with. So it is one record for all rounds, whose content changes; and where weights travel as they
are, those that the coordinator computes with lie in the record.
"""

from typing import Final

from flwr.app import ArrayRecord

from fl_ppseg.federation.coded_weights import CodedWeights
from fl_ppseg.federation.messages import pack_arrays, pack_in_place
from fl_ppseg.system.arrays import Arrays, array_bytes
from fl_ppseg.system.spans import span


class CarriedWeights:
    """What Flower's loop carries of an arm."""

    def __init__(self, coded: CodedWeights, are_common: bool) -> None:
        """Hold nothing yet.

        Args:
            coded: The code in which weights travel.
            are_common: Whether all clients get the same weights.
        """
        self._coded = coded
        self._are_common = are_common
        self.record: Final = ArrayRecord()
        """The newest weights, packed."""
        self.num_bytes = 0
        """Of the newest weights as they travel."""

    def put(self, weights: Arrays) -> Arrays:
        """Pack the weights that the code has encoded last; returns them to compute with."""
        with span("wire"):
            sent = self._coded.sent(weights)
            self.num_bytes = array_bytes(sent)
            if sent is weights and self._are_common:
                packed, weights = pack_in_place(weights)
            else:
                packed = pack_arrays(sent)
            self.record.update(packed)
            return weights
