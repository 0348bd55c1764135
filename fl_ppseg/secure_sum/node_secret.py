"""The secret of a node: 32 bytes from the OS, from which all of its keys are derived.

A node keeps nothing between the messages of a round: whatever it needs again it derives again, from
this secret, the session, and the salt of its record of pledges. Who has secret and salt can sign as
the node, and take the node's masks off what it sent; neither decrypts an image. Printing shows the
public key, pickling and copying raise.
"""

import os
from typing import NoReturn, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.masks import KEY_BYTES, derive
from fl_ppseg.secure_sum.roster import Session


class NodeSecret:
    """Derives the keys of a node."""

    __slots__ = ("_salt", "_secret")

    def __init__(self, secret: bytes, salt: str = "") -> None:
        """Take 32 secret bytes.

        Args:
            secret: The bytes.
            salt: Of the record of pledges that goes with them: with another record all keys but
                the cohort key are others, so that no session is ever begun anew under the same.

        Raises:
            SumError: There are more or fewer.
        """
        if len(secret) != KEY_BYTES:
            raise SumError(f"expected a node's secret of {KEY_BYTES} bytes, got {len(secret)}")
        self._secret, self._salt = bytes(secret), salt

    @classmethod
    def new(cls) -> Self:
        """Draw a new one from the OS."""
        return cls(os.urandom(KEY_BYTES))

    def __repr__(self) -> str:
        return f"NodeSecret(public key {self.public_key})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node's secret is neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("a node's secret is neither pickled nor copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("a node's secret is neither pickled nor copied")

    def salted(self, salt: str) -> "NodeSecret":
        """The same secret with a salt."""
        return NodeSecret(self._secret, salt)

    def to_hex(self) -> str:
        """Its content, for the file that its owner keeps."""
        return self._secret.hex()

    @property
    def public_key(self) -> str:
        """The public cohort key, in hex."""
        return self._signing_key().public_key().public_bytes_raw().hex()

    def sign(self, content: bytes) -> str:
        """Ed25519 signature by the cohort key, in hex."""
        return self._signing_key().sign(content).hex()

    def mask_key(self, session: Session) -> X25519PrivateKey:
        """The key that the masks of a session are agreed on with."""
        return X25519PrivateKey.from_private_bytes(self._derive(session.digest, "mask key"))

    def share_key(self, session: Session) -> X25519PrivateKey:
        """The key that the shares of a session are sealed with."""
        return X25519PrivateKey.from_private_bytes(self._derive(session.digest, "share key"))

    def self_seed(self, roster: bytes) -> bytes:
        """The seed of the node's own mask among the clients of a roster, given its digest."""
        return self._derive(roster, "self seed")

    def coefficients(self, roster: bytes, label: str, num_bytes: int) -> bytes:
        """Random bytes for the sharing of a secret, the same each time, given a roster's digest."""
        key = self._derive(roster, f"coefficients/{label}")
        return Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(num_bytes))

    def _signing_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(derive(self._secret, b"", "signing key"))

    def _derive(self, salt: bytes, label: str) -> bytes:
        return derive(self._secret, salt, f"{label}/{self._salt}")
