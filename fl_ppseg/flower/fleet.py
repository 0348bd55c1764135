"""How a SuperNode shows a SuperLink who it is, and which of its paths it uses."""

import binascii
import datetime
from base64 import b64decode
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

NODE_PATHS: Final = (
    "/v1/fleet/activate-node",
    "/v1/fleet/confirm-message-received",
    "/v1/fleet/deactivate-node",
    "/v1/fleet/get-fab",
    "/v1/fleet/get-run",
    "/v1/fleet/pull-messages",
    "/v1/fleet/pull-object",
    "/v1/fleet/push-messages",
    "/v1/fleet/push-object",
    "/v1/fleet/send-node-heartbeat",
)
"""What an enrolled node asks Flower 1.41 for. Registering is not among it: that is `enrol`."""
SIGNED_HEADERS: Final = (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    TIMESTAMP_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
)
"""By which a node says who it is: key, time, and the key's signature over the time."""


def is_signed_now(key: bytes, stamp: str, signature: str) -> bool:
    """Whether a node has signed the time of its request, and did so now.

    Args:
        key: The node's public key, PEM.
        stamp: When it signed, in ISO 8601.
        signature: Over the stamp, in base64.
    """
    try:
        age = (now() - datetime.datetime.fromisoformat(stamp)).total_seconds()
        proof = b64decode(signature, validate=True)
        signed = verify_signature(bytes_to_public_key(key), stamp.encode("ascii"), proof)
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return False
    is_fresh = -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    return is_fresh and signed
