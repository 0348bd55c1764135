"""The command in a process of its own: where it listens, TLS, and how it ends."""

import contextlib
import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_service as small
from checkout import CHECKOUT
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fl_ppseg.serve import main
from fl_ppseg.service import server
from fl_ppseg.service.server import Place, check_place
from fl_ppseg.system.command_line import run
from fl_ppseg.system.errors import InputError

CODE = """
import sys, time
from pathlib import Path
import small_service as small
from fl_ppseg.service.app import create_app
from fl_ppseg.service.server import Place, check_place, serve

class Slow(type(small.segmenter())):
    def segment_batch(self, queries, size=None):
        print("computing", flush=True)
        time.sleep(1.5)
        return super().segment_batch(queries, size)

model = small.segmenter()
model.__class__ = Slow
place = Place("127.0.0.1", 0, *map(Path, sys.argv[1:]))
check_place(place)
sys.exit(serve(create_app(model), place, lambda line: print(line, flush=True)))
"""


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process, and its address."""
    with subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        cwd=CHECKOUT / "tests" / "support",
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening at ")
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_was_accepted_is_answered_before_it_ends(sent: signal.Signals, status: int) -> None:
    with running() as (process, url), asked(url, small.png(small.query())) as asking:
        assert process.stdout is not None and asking.stdout is not None
        assert process.stdout.readline() == "computing\n"
        process.send_signal(sent)
        assert process.wait(30) == status
        assert asking.stdout.read().startswith(b"\x89PNG")
        assert asking.wait(10) == 0
        assert "stopped" in process.stdout.read()
        with pytest.raises(OSError):
            urllib.request.urlopen(url, timeout=2)


ASK = """
import sys, urllib.request
request = urllib.request.Request(
    sys.argv[1], sys.stdin.buffer.read(), {"Content-Type": "image/png"}, method="POST"
)
sys.stdout.buffer.write(urllib.request.urlopen(request, timeout=30).read())
"""


@contextmanager
def asked(url: str, query: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A client in a process, which prints the answer."""
    command = [sys.executable, "-c", ASK, f"{url}v1/segment"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asking:
        assert asking.stdin is not None
        asking.stdin.write(query)
        asking.stdin.close()
        yield asking


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as (_, found):
        yield found


def test_a_head_without_end_is_cut_off(url: str) -> None:
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: service\r\nX-Much: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                connection.sendall(bytes(2**14).replace(b"\0", b"x"))
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(2**12)
    assert answer[:12] in (b"", b"HTTP/1.1 400")
    with urllib.request.urlopen(f"{url}healthz", timeout=30) as found:
        assert found.status == 200


def test_answers_do_not_wait_to_be_confirmed(url: str) -> None:
    """The quickest of several on one connection, on however busy a machine."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=30)
    seconds = []
    with contextlib.closing(connection):
        for _ in range(20):
            begin = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            seconds.append(time.perf_counter() - begin)
    assert min(seconds[1:]) < 0.035


def test_the_client_of_the_page_gets_what_the_model_sees(url: str, tmp_path: Path) -> None:
    text = (CHECKOUT / "docs" / "service.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "street.png").write_bytes(small.png(small.photograph((37, 71))))
    code = code.replace("http://127.0.0.1:8080", url.rstrip("/"))
    code = code.replace("street.png", str(tmp_path / "street.png"))
    found: dict[str, Any] = {}
    exec(compile(code, "service.md", "exec"), found)
    assert found["labels"].shape == (37, 71)
    assert found["labels"].dtype == np.uint8 and found["labels"].max() < 19


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    options = ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*command, *options, *names, *out], check=True, capture_output=True)
    return files


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_over_tls(certificate: tuple[Path, Path]) -> None:
    with running(*map(str, certificate)) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(certificate[0]))
        with urllib.request.urlopen(f"{url}healthz", context=trusted, timeout=30) as answer:
            assert answer.read() == b'{"status":"ok"}'
        old = ssl.create_default_context(cafile=str(certificate[0]))
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{url}healthz", context=old, timeout=30)


def test_places_where_others_could_read_are_refused(certificate: tuple[Path, Path]) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_place(Place(host, 0))
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(InputError, match="others on the network could read"):
            check_place(Place(host, 0))
        check_place(Place(host, 0, *certificate))
        check_place(Place(host, 0, proxies=("10.0.0.1", "10.1.0.0/16")))


def test_certificates_and_proxies_that_are_none(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    for place, why in (
        (Place("::1", 0, cert), "go together"),
        (Place("::1", 0, None, key), "go together"),
        (Place("::1", 0, cert, cert), "no certificate with its unencrypted key"),
        (Place("::1", 0, proxies=("proxy",)), "expected an IP address"),
    ):
        with pytest.raises(InputError, match=why):
            check_place(place)
    with pytest.raises(FileNotFoundError):
        check_place(Place("::1", 0, cert, tmp_path / "none"))


def test_a_port_that_is_taken_is_one_line() -> None:
    with server._listening(Place("127.0.0.1", 0)) as listener:
        taken = Place("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(InputError, match="in use"), server._listening(taken):
            pass


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--model", "/nowhere"], "/nowhere"),
        (["--model", "x", "--host", "0.0.0.0"], "others on the network could read"),
        (["--model", "x", "--tls-cert", "c.pem"], "go together"),
        (["--model", "x", "--tokens", "/nowhere/tokens"], "/nowhere"),
        (["--model", "x", "--rate", "0"], "--rate"),
        (["--model", "x", "--port", "70000"], "port"),
        ([], "--model"),
    ],
)
def test_bad_arguments_are_one_line(
    options: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.monotonic()
    assert run(main, options) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1
    assert time.monotonic() - begin < 60


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FastAPI, Place]]:
    """What the command would serve, instead of serving it."""
    found: list[tuple[FastAPI, Place]] = []

    def serve(app: FastAPI, place: Place, say: object) -> int:
        found.append((app, place))
        return 0

    monkeypatch.setattr(server, "serve", serve)
    return found


def loads(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    model = small.segmenter(**changes)
    monkeypatch.setattr("fl_ppseg.inference.loading.load", lambda path, device: model)


def test_options_become_limits_and_a_place(
    served: list[tuple[FastAPI, Place]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads(monkeypatch)
    options = ["--host", "::1", "--port", "81", "--max-pixels", "4096", "--max-bytes", "9999"]
    assert run(main, ["--model", "x", *options, "--rate", "1", "--burst", "1"]) == 0
    ((app, place),) = served
    assert (place.host, place.port) == ("::1", 81)
    query = small.png(small.query())
    with TestClient(app) as client:
        limits = client.get("/v1/model").json()["limits"]
        assert limits == {"max_bytes": 9999, "max_pixels": 4096}
        answers = [client.post("/v1/segment", content=query, headers=small.PNG) for _ in "12"]
        assert [each.status_code for each in answers] == [200, 429]


def test_a_model_that_needs_a_key_is_not_served(
    served: list[tuple[FastAPI, Place]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loads(monkeypatch, adapts=True)
    assert run(main, ["--model", "x"]) == 2
    assert "embedding adapted to their key" in capsys.readouterr().err
    assert served == []


def test_a_model_of_plain_images_is_served_with_a_word(
    served: list[tuple[FastAPI, Place]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loads(monkeypatch, cipher=None, key="none")
    assert run(main, ["--model", "x"]) == 0
    assert "can look at them" in capsys.readouterr().err
    with TestClient(served[0][0]) as client:
        content = small.png(small.photograph())
        assert client.post("/v1/segment", content=content, headers=small.PNG).status_code == 200


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("fl_ppseg.service")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert run(main, ["--model", "x"]) == 2
    assert "pip install 'fl-ppseg[serve]'" in capsys.readouterr().err
