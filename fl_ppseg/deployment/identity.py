"""A node's key pair: an EC key in OpenSSH's formats, which Flower reads."""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fl_ppseg.config.documents import read_bytes
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

MAX_PUBLIC_BYTES = 4096
"""Largest node.pub in bytes; it has 250."""
KIND = "ecdsa-sha2-nistp384 "
"""Start of its line."""


def key_pair(comment: str) -> tuple[bytes, bytes]:
    """A new key pair (EC P-384): private half, without a passphrase, and public half."""
    key = ec.generate_private_key(ec.SECP384R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return secret, shown + f" {comment}\n".encode()


def make_key_pair(private: Path, public: Path, comment: str) -> None:
    """Write a new key pair; the private half 0600.

    Raises:
        InputError: There is one already; a new key pair would make another node of it.
    """
    if private.exists():
        raise InputError(
            f"{private} exists already and is not replaced; for a new key give another --home"
        )
    secret, shown = key_pair(comment)
    write_atomically(private, secret, mode=0o600)
    write_atomically(public, shown)


def read_public_key(path: Path) -> bytes:
    """A node's public key in PEM, as Flower's SuperLink knows it.

    Raises:
        InputError: The file cannot be read, or is not one P-384 public key in OpenSSH's format.
    """
    content = read_bytes(path, MAX_PUBLIC_BYTES)
    try:
        (line,) = content.decode("utf-8").splitlines()  # one key a file
        key = serialization.load_ssh_public_key(content) if line.startswith(KIND) else None
    except (ValueError, UnsupportedAlgorithm, NotImplementedError):  # e.g. a compressed point
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise InputError(f"{path}: expected a node's public key, the node.pub of clients.node init")
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def fingerprint(public: Path) -> str:
    """Fingerprint for people to compare, as `ssh-keygen -l` shows it.

    Raises:
        InputError: The file is not a public key in OpenSSH's format.
    """
    try:
        blob = base64.b64decode(public.read_text("ascii").split()[1], validate=True)
    except (ValueError, IndexError):
        raise InputError(f"{public}: expected a public key in OpenSSH's format") from None
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"
