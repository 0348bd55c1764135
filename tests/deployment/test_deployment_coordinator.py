"""Who is let in and through what: certificates, the proxy, enrolment."""

import shutil
import subprocess
from pathlib import Path

import pytest
from flwr.superlink.routers.fleet.router import router
from small_coordinator import INIT, Registry, coordinator, public_key

from fl_ppseg.deployment.certificates import Pair, issue, make_authority
from fl_ppseg.deployment.identity import fingerprint, make_key_pair, read_public_key
from fl_ppseg.system.command_line import run as run_command
from fl_ppseg.system.errors import InputError
from strategies.coordinator.command import main
from strategies.coordinator.enrolment import enrol, register_enrolled, revoke
from strategies.coordinator.home import Home
from strategies.coordinator.proxy import NODE_PATHS, write_proxy
from strategies.coordinator.serving import superlink


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return coordinator(tmp_path)


# The folder and its certificates.


def test_init_leaves_a_folder_that_nodes_will_trust(home: Home) -> None:
    home.check_certificates()
    assert home.settings.hosts == ("coordinator.example", "10.1.0.1")
    assert home.folder.stat().st_mode & 0o077 == 0
    assert not home.link_authority.key.exists()


def test_init_touches_no_other_coordinator(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    before = home.server.certificate.read_bytes()
    assert run_command(main, [*INIT, "--home", str(home.folder)]) == 2
    assert "add --renew" in capsys.readouterr().err
    assert home.server.certificate.read_bytes() == before


def test_renewed_certificates_are_of_the_same_authority(home: Home) -> None:
    authority, server = (p.read_bytes() for p in (home.authority[0], home.server[0]))
    assert main(["init", "--home", str(home.folder), "--renew"]) == 0
    assert home.authority.certificate.read_bytes() == authority
    assert home.server.certificate.read_bytes() != server
    home.check_certificates()


def given(folder: Path, host: str, days: int = 5) -> list[str]:
    authority, pair = (Pair(folder / f"{n}.crt", folder / f"{n}.key") for n in ("own-ca", "own"))
    make_authority(authority, days=9)
    issue(authority, pair, [host], days)
    files = {"--certificate": pair.certificate, "--key": pair.key, "--ca": authority.certificate}
    return [text for option, file in files.items() for text in (option, str(file))]


def test_existing_certificates_are_used(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    options = [*given(tmp_path, "mine.example"), "--home", str(home.folder)]
    assert main(["init", "--host", "mine.example", *options]) == 0
    home.check_certificates()
    assert home.server.certificate.read_bytes() == (tmp_path / "own.crt").read_bytes()
    assert not home.authority.key.exists()


@pytest.mark.parametrize(
    ("host", "days", "line"),
    [("other.example", 5, "mismatch"), ("mine.example", 0, "certificate has expired")],
)
def test_certificates_that_nodes_would_refuse_are_refused(
    host: str, days: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*given(tmp_path, "mine.example", days), "--home", str(tmp_path / "home")]
    assert run_command(main, ["init", "--host", host, *options]) == 2
    error = capsys.readouterr().err
    assert line in error.lower()
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["init"], "--host or --ip"),
        (["init", "--host", "a.example", "--port", "0"], "init: port: "),
        (["init", "--host", "a.example", "--key", "k"], "must be given together"),
        (["start"], "is not a folder of a coordinator"),
        (["status"], "is not a folder of a coordinator"),
        (["run", "--run", "nowhere"], "clients.json: cannot be read"),
    ],
)
def test_wrong_options_are_one_line(
    argv: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [*argv, "--home", str(tmp_path / "home")]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


# The proxy.


def test_the_proxy_lets_through_what_nodes_need_and_no_more() -> None:
    of_flower = {route.path for route in router.routes}  # type: ignore[attr-defined]
    apart = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert set(NODE_PATHS) == of_flower - apart


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
def test_haproxy_takes_the_configuration(home: Home) -> None:
    write_proxy(home)
    done = subprocess.run(
        ["haproxy", "-c", "-V", "-f", home.proxy_config],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert home.proxy_pem.stat().st_mode & 0o077 == 0


def test_without_haproxy_nothing_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("strategies.coordinator.proxy.shutil.which", lambda *_, **__: None)
    assert run_command(main, ["start", "--home", str(home.folder)]) == 2
    assert "haproxy is not installed" in capsys.readouterr().err


def test_a_haproxy_that_cannot_ask_the_gate_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = tmp_path / "haproxy"
    built.write_text("#!/bin/sh\necho OPTIONS = USE_OPENSSL=1\n")
    built.chmod(0o755)
    monkeypatch.setattr("strategies.coordinator.proxy.shutil.which", lambda *_, **__: str(built))
    assert run_command(main, ["start", "--home", str(home.folder)]) == 2
    assert "was built without Lua" in capsys.readouterr().err


# Enrolment.


def in_line(home: Home, registry: Registry) -> list[str]:
    registry.calls.clear()
    register_enrolled(home, registry)  # type: ignore[arg-type]
    assert {(n.client, n.public_key) for n in registry.known} == {
        (client, read_public_key(path)) for client, path in home.enrolled().items()
    }
    return registry.calls


def test_enrolling_is_idempotent_and_a_second_key_is_refused(home: Home, tmp_path: Path) -> None:
    registry = Registry()
    first, second = (public_key(tmp_path, name) for name in ("first", "second"))
    enrol(home, "aachen", first, replace=False)
    assert in_line(home, registry) == ["+aachen"]
    enrol(home, "aachen", first, replace=False)
    assert in_line(home, registry) == []
    with pytest.raises(InputError, match="aachen is enrolled with another key") as caught:
        enrol(home, "aachen", second, replace=False)
    assert "--replace" in str(caught.value)
    with pytest.raises(InputError, match="enrolled for aachen; every client needs its own key"):
        enrol(home, "bochum", first, replace=True)
    enrol(home, "aachen", second, replace=True)
    assert in_line(home, registry) == ["-aachen", "+aachen"]


def test_a_revoked_client_is_out_at_once_and_its_key_for_good(home: Home, tmp_path: Path) -> None:
    registry = Registry()
    key = public_key(tmp_path, "aachen")
    enrol(home, "aachen", key, replace=False)
    in_line(home, registry)
    with pytest.raises(InputError, match="'bochum' is not enrolled; enrolled: aachen"):
        revoke(home, "bochum")
    assert revoke(home, "aachen") == fingerprint(key)
    assert in_line(home, registry) == ["-aachen"]
    for client in ("aachen", "zurich"):
        with pytest.raises(InputError, match="revoked for aachen and cannot be enrolled again"):
            enrol(home, client, key, replace=True)
    enrol(home, "aachen", public_key(tmp_path, "new"), replace=False)
    assert in_line(home, registry) == ["+aachen"]
    enrol(
        home, "aachen", public_key(tmp_path, "newer"), replace=True
    )  # which revokes the one before
    assert in_line(home, registry) == ["-aachen", "+aachen"]
    with pytest.raises(InputError, match="this key was revoked"):
        enrol(home, "aachen", tmp_path / "new.pub", replace=True)
    assert [client for client, _ in home.revoked()] == ["aachen"] * 2
    assert list(home.enrolled()) == ["aachen"]


def test_revoke_says_what_it_does_and_status_shows_it(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--home", str(home.folder)]
    assert main(["enrol", *place, "aachen", str(public_key(tmp_path, "aachen"))]) == 0
    capsys.readouterr()
    assert main(["revoke", *place, "aachen"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("aachen SHA256:")
    assert told.out.endswith(" revoked\n")
    assert "no SuperLink answers; if one is running, restart it" in told.err
    assert (
        run_command(main, ["status", *place]) == 1
    )  # no SuperLink: the folder is shown all the same
    assert "aachen: revoked (SHA256:" in capsys.readouterr().out
    assert run_command(main, ["revoke", *place, "aachen"]) == 2
    assert "'aachen' is not enrolled; enrolled: none" in capsys.readouterr().err


@pytest.mark.parametrize("bind", ["", "0.0.0.0"])
def test_an_insecure_superlink_is_this_machines_own_unless_asked_for_more(
    bind: str, tmp_path: Path
) -> None:
    options = ["--insecure-for-tests", *(("--bind", bind) if bind else ())]
    assert main([*INIT, *options, "--home", str(tmp_path / "home")]) == 0
    command = superlink(Home(tmp_path / "home")).command
    assert command[command.index("--host") + 1] == (bind or "127.0.0.1")


@pytest.mark.parametrize("client", ["", ".hidden", "a/b", "x" * 64])
def test_names_that_are_no_file_names_are_refused(client: str, home: Home, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the name of a client"):
        enrol(home, client, public_key(tmp_path, "k"), replace=False)


def test_other_files_are_no_keys(home: Home, tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k", tmp_path / "k.pub", "")
    with pytest.raises(InputError, match="expected a node's public key"):
        enrol(home, "aachen", tmp_path / "k", replace=False)
