"""Replies to requests to train, whose updates travel in a code (`fl_ppseg.codecs`)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from flwr.app import RecordDict

from fl_ppseg.codecs.tensors import CodecError
from fl_ppseg.codecs.update import codec_of
from fl_ppseg.config.sections import TrainingConfig
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.messages import MessageError, packed_size, unpack_reply


def unpack_update(
    content: RecordDict, start: Mapping[str, np.ndarray], training: TrainingConfig
) -> Reply:
    """The reply in a message, its update decoded to weights.

    Args:
        content: Of the message.
        start: The weights that were sent, of the tensors that a reply must hold; empty: none.
        training: Of the request; names the codec.

    Raises:
        MessageError: As `unpack_reply`, or what came is not of the codec.
    """
    codec = codec_of(training)
    layout = codec.layout(start)
    reply = unpack_reply(content, layout, packed_size(layout.values()))
    try:
        return replace(reply, arrays=codec.unpack(reply.arrays, start))
    except CodecError as error:
        raise MessageError(str(error)) from None
