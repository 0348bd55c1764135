"""Weights of a request that came in a code, decoded with the owner's copy of round 0."""

from clients.policy.node_policy import NodePolicy, RefusedError
from clients.policy.start_weights import read_start, start_hash
from fl_ppseg.federation.coded_weights import decoded
from fl_ppseg.federation.message_content import Request


def with_weights(request: Request, policy: NodePolicy) -> Request:
    """The request with its weights, as everything after it expects them.

    What the owner did not agree to is left as it is: `clients.policy.permission` refuses it.

    Raises:
        RefusedError: The owner has no copy of the weights of round 0.
        MessageError: The code is not one of changes of these.
        InputError: The copy is damaged.
    """
    arm = policy.arms.get(request.arm)
    if request.training.weights_codec == "fp32" or not request.arrays or arm is None:
        return request
    if request.training != arm.training or request.seed not in arm.shards:
        return request
    if arm.start is None:
        raise RefusedError(
            "refused: weights came as changes since round 0, of which this node has no copy; use "
            "training.weights_codec fp32"
        )
    folder = arm.start[request.seed]
    return decoded(request, read_start(folder), start_hash(folder))
