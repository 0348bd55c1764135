"""Certificates serve whom they are for, as the TLS library of the nodes and OpenSSL judge."""

import datetime
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from fl_ppseg.deployment.certificates import Pair, expiry, issue, make_authority, rehearse
from fl_ppseg.system.errors import InputError

HOSTS = ("coordinator.example", "10.0.0.1", "fd00::1")


def pair(folder: Path, name: str) -> Pair:
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")


@pytest.fixture
def authority(tmp_path: Path) -> Pair:
    made = pair(tmp_path, "ca")
    make_authority(made, days=30)
    return made


@pytest.fixture
def server(tmp_path: Path, authority: Pair) -> Pair:
    made = pair(tmp_path, "server")
    issue(authority, made, HOSTS, days=7)
    return made


@pytest.mark.parametrize("host", [*HOSTS, "localhost", "127.0.0.1"])
def test_it_serves_every_name_that_it_was_made_for(
    host: str, authority: Pair, server: Pair
) -> None:
    rehearse(server, authority.certificate, host)


@pytest.mark.parametrize("host", ["other.example", "10.0.0.2", "sub.coordinator.example"])
def test_it_serves_no_other_name(host: str, authority: Pair, server: Pair) -> None:
    with pytest.raises(InputError, match="mismatch") as caught:
        rehearse(server, authority.certificate, host)
    assert "\n" not in str(caught.value)


def test_a_certificate_of_another_authority_is_refused(tmp_path: Path, server: Pair) -> None:
    other = pair(tmp_path, "other")
    make_authority(other, days=30)
    with pytest.raises(InputError, match=r"signature failure|unable to get local issuer"):
        rehearse(server, other.certificate, HOSTS[0])


def test_a_key_of_another_certificate_is_refused(authority: Pair, server: Pair) -> None:
    with pytest.raises(InputError, match="key values mismatch"):
        rehearse(Pair(server.certificate, authority.key), authority.certificate, HOSTS[0])


def test_an_expired_certificate_is_refused_with_this_word(tmp_path: Path, authority: Pair) -> None:
    old = pair(tmp_path, "old")
    issue(authority, old, HOSTS, days=0)
    with pytest.raises(InputError, match="certificate has expired"):
        rehearse(old, authority.certificate, HOSTS[0])


def test_validity_is_what_was_asked_for(server: Pair) -> None:
    left = expiry(server.certificate) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=6, hours=23) < left <= datetime.timedelta(days=7)


def test_keys_are_their_owners_alone(authority: Pair, server: Pair) -> None:
    for made in (authority, server):
        assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
        assert stat.S_IMODE(made.certificate.stat().st_mode) == 0o644


def test_no_certificates_are_said_to_be_none(tmp_path: Path, server: Pair) -> None:
    nothing = tmp_path / "empty.pem"
    nothing.write_text("nothing\n")
    with pytest.raises(InputError, match="expected certificates in PEM"):
        rehearse(server, nothing, HOSTS[0])
    with pytest.raises(InputError, match="expected a certificate in PEM"):
        expiry(nothing)


def test_a_name_that_is_none_is_refused(tmp_path: Path, authority: Pair) -> None:
    with pytest.raises(InputError, match="is not a host name"):
        issue(authority, pair(tmp_path, "x"), ["größe"], days=1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to compare with")
def test_openssl_agrees(authority: Pair, server: Pair) -> None:
    for purpose in (["-verify_hostname", HOSTS[0]], ["-verify_ip", HOSTS[1]]):
        done = subprocess.run(
            [
                *("openssl", "verify", "-x509_strict", "-purpose", "sslserver", *purpose),
                *("-CAfile", str(authority.certificate), str(server.certificate)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
