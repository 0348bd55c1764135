"""TLS for a federation: certificates of a new authority, or existing ones.

Whether a certificate is valid for the nodes is not derived from its fields: the handshake that
every node will make is made once in memory, with the same library.
"""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically

CLOCK_SKEW = datetime.timedelta(hours=1)
"""A new certificate is valid from this long ago, for machines whose clock is behind."""
LOOPBACK = ("localhost", "127.0.0.1")
"""Names of the server for the coordinator's own processes."""
HANDSHAKE_STEPS = 6
"""Most turns of both sides: more than any TLS handshake needs."""


class Pair(NamedTuple):
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


def make_authority(pair: Pair, days: int) -> None:
    """Write an authority (EC P-256) that signs the certificates of one federation."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("fl_ppseg authority of one federation")
    certificate = (
        _builder(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(pair, certificate, key)


def issue(authority: Pair, pair: Pair, hosts: Sequence[str], days: float) -> None:
    """Write a server certificate (EC P-256) that an authority signs.

    Args:
        authority: Made by `make_authority`.
        pair: Files to write.
        hosts: Names and addresses of the server; `LOOPBACK` is added.
        days: Validity in days.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    signer = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_alternative(host) for host in dict.fromkeys((*hosts, *LOOPBACK))]
    certificate = (
        _builder(_name(hosts[0] if hosts else LOOPBACK[0]), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    _write(pair, certificate, key)


def rehearse(pair: Pair, authority: Path, host: str) -> None:
    """Make the handshake that a node will make, in memory.

    Args:
        pair: The server's certificate, followed by its chain, and its key.
        authority: Certificates that the node trusts.
        host: Name or address that the node will connect to.

    Raises:
        InputError: It fails: another key, expired, of another authority or for other hosts.
    """
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pair.certificate, pair.key)
        _handshake(trusting(authority), server, host)
    except ssl.SSLError as error:
        raise InputError(
            f"{pair.certificate}: cannot serve {host} to nodes that trust {authority} "
            f"({reason(error)}); give a certificate, key and authority that belong together, or "
            "have new ones made with init --renew"
        ) from None


def trusting(authority: Path | None) -> ssl.SSLContext:
    """A client's TLS settings that trust the certificates in a file, or the system's.

    Raises:
        InputError: The file holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if authority is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError:
        raise InputError(
            f"{authority}: expected certificates in PEM; give the coordinator's ca.crt"
        ) from None
    return context


def reason(error: ssl.SSLError) -> str:
    """OpenSSL's description of an error."""
    found = getattr(error, "verify_message", None) or error.reason or str(error)
    return str(found).rstrip(".").replace("_", " ").lower()


def expiry(certificate: Path) -> datetime.datetime:
    """End of the validity of a certificate (UTC).

    Raises:
        InputError: The file holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except ValueError:
        raise InputError(f"{certificate}: expected a certificate in PEM") from None


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    )
    for end in ends * HANDSHAKE_STEPS:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise InputError(f"{host!r} is not a host name or address") from None


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(pair.key, private, mode=0o600)
    write_atomically(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
