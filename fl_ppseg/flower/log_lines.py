"""What Flower 1.41 writes into its logs, where nothing else tells what has happened.

`tests/flower/test_flower.py` looks for each of these in the source of the installed Flower.
"""

from typing import Final

CONNECTED: Final = "SuperNode ID"
"""A SuperNode has reached its SuperLink and was admitted."""
MESSAGE_LOST: Final = (
    "Failed to receive message",
    "Failed to send message",
    "Ignoring message",
    "Cannot get processing duration",
    "Cannot record end time",
)
"""A SuperNode drops a message, or holds an answer to one that it has dropped: from then on it sends
the answer before the last, or its app waits for the rest of the message without end."""
NOT_ACTIVATED: Final = "[code: 2004]"
"""A SuperLink does not admit a SuperNode: its key is not registered, or it is still online."""
REJECTED: Final = ("401", "terminated gracefully")
"""A SuperLink rejects the signature of a SuperNode, which then ends as if it had been asked to."""
SERVER_APP_FAILED: Final = "ServerApp failed with exception: "
"""How Flower begins the reason that a ServerApp gave; all else is the loss of a process."""
LINK_FAILED: Final = "Server error '5"
"""In such a reason: the SuperLink did not do what it was asked, e.g. as its database was locked."""
