"""The node that a coordinator attacks: the ClientApp behind a grid of one node."""

from pathlib import Path
from typing import Final

from flwr.app import Context, Message, MessageType, RecordDict

from clients.client_app import app
from fl_ppseg.federation.coded_replies import unpack_update
from fl_ppseg.federation.message_content import Reply, Request
from fl_ppseg.federation.messages import pack_request
from fl_ppseg.flower.in_process import InProcessGrid
from fl_ppseg.setr.names import withheld

TRAIN: Final = MessageType.TRAIN


class Node(InProcessGrid):
    """A grid of one node that is started with a policy, as a SuperNode is."""

    def __init__(self, policy: Path) -> None:
        self._node_config: dict[str, bool | float | int | str] = {
            "policy": str(policy),
            "state": str(policy.with_name("state")),
        }
        super().__init__(app, 1)

    def answer(self, request: Request) -> Reply | str:
        """The reply, or the reason of the node's refusal."""
        (node_id,) = self.get_node_ids()
        kind = TRAIN if request.task == "train" else MessageType.EVALUATE
        (answer,) = self.send_and_receive([Message(pack_request(request), node_id, kind)])
        if answer.has_error():
            return str(answer.error.reason)
        travel = request.arrays.keys() - withheld(request.embedding) if kind is TRAIN else ()
        start = {name: request.arrays[name] for name in travel}
        return unpack_update(answer.content, start, request.training)

    def _context(self, partition_id: int, num_nodes: int) -> Context:
        usual = super()._context(partition_id, num_nodes)
        return Context(usual.run_id, usual.node_id, self._node_config, RecordDict(), {})
