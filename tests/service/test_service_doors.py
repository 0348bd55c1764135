"""The doors of the service: tokens, rates, places, disconnecting clients, figures, the page."""

import asyncio
import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import small_service as small
import torch

from fl_ppseg.inference.segmenter import Segmentation
from fl_ppseg.service.app import create_app
from fl_ppseg.service.envelope import POLICY
from fl_ppseg.service.limits import Limits
from fl_ppseg.service.page_files import PageFile, page_files
from fl_ppseg.service.tokens import load_tokens
from fl_ppseg.system.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
DIGEST = hashlib.sha256(b"secret").hexdigest()
GOOD = small.png(small.query())


def token_file(folder: Path, text: str = f"# ours\n\n{DIGEST}\n", mode: int = 0o600) -> Path:
    file = folder / "tokens"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    "said",
    [
        None,
        "Bearer",
        "Bearer other",
        "Basic secret",
        "secret",
        f"Bearer {DIGEST}",
        "Bearer secret2",
        "Bearer caf\xe9",
    ],
)
def test_without_a_token_nothing_is_told(said: str | None, tmp_path: Path) -> None:
    right = {"Authorization": "Bearer secret"}
    wrong = {} if said is None else {"Authorization": said.encode("latin-1")}
    with small.client(tokens=load_tokens(token_file(tmp_path))) as client:
        for method, path in (
            ("POST", "/v1/segment"),
            ("POST", "/v1/reconstruct"),
            ("GET", "/v1/model"),
            ("GET", "/metrics"),
        ):
            answer = client.request(method, path, content=GOOD, headers=wrong | small.PNG)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/model", headers=right).status_code == 200
        again = client.post("/v1/segment", content=GOOD, headers=right | small.PNG)
        assert again.status_code == 200


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (f"{DIGEST}\n", 0o644, "others may read it; chmod 600"),
        (f"{DIGEST}\n", 0o620, "others may write it"),
        ("# none\n", 0o600, "lists no token"),
        (f"{DIGEST}\nsecret\n", 0o600, "line 2 is no SHA-256"),
        (f"{DIGEST.upper()}\n", 0o600, "line 1 is no SHA-256"),
        (f"{DIGEST}\n" * 2000, 0o600, "at most 65536 bytes"),
    ],
)
def test_a_file_that_lists_no_tokens(text: str, mode: int, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why) as refused:
        load_tokens(token_file(tmp_path, text, mode))
    assert "secret" not in str(refused.value) and DIGEST not in str(refused.value)


def test_a_file_of_tokens_that_is_not_there_or_a_link(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_tokens(tmp_path / "none")
    (tmp_path / "link").symlink_to(token_file(tmp_path))
    with pytest.raises(InputError, match="link"):
        load_tokens(tmp_path / "link")


def test_who_asks_too_often_is_told_when_to_come_again() -> None:
    with small.client(limits=Limits(requests_per_minute=1, burst=2)) as client:
        found = [client.post("/v1/segment", content=GOOD, headers=small.PNG) for _ in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]
        assert 1 <= int(found[2].headers["retry-after"]) <= 60
        assert client.get("/v1/model").status_code == 200  # costs nothing


class HeldModel:
    """A model that waits until it is let, on a device that computes one batch after the other."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        own = small.segmenter()
        self.spec, self.classes, self.name, self.check_size = (
            own.spec,
            own.classes,
            own.name,
            own.check_size,
        )
        self.may_go, self.has_begun = threading.Event(), threading.Event()
        self.seen = 0

    def segment_batch(self, queries: np.ndarray, size: tuple[int, int]) -> list[Segmentation]:
        self.has_begun.set()
        assert self.may_go.wait(20)
        self.seen += len(queries)
        empty = Segmentation(np.zeros(size, np.uint8), np.ones(size, np.float32))
        return [empty for _ in queries]


def test_a_full_service_refuses_and_goes_on() -> None:
    model: Any = HeldModel()

    async def act() -> None:
        app = create_app(model, limits=Limits(max_requests=2))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=("192.0.2.1", 1)),
                base_url="http://service",
            ) as one,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=("192.0.2.2", 1)),
                base_url="http://service",
            ) as two,
        ):
            waiting = [
                asyncio.create_task(each.post("/v1/segment", content=GOOD, headers=small.PNG))
                for each in (one, two)
            ]
            await asyncio.to_thread(model.has_begun.wait, 20)
            while (await one.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
            full = await one.post("/v1/segment", content=GOOD, headers=small.PNG)
            assert full.status_code == 503 and full.headers["retry-after"] == "1"
            assert (await one.get("/healthz")).status_code == 200
            model.may_go.set()
            assert [(await each).status_code for each in waiting] == [200, 200]
            again = await one.post("/v1/segment", content=GOOD, headers=small.PNG)
            assert again.status_code == 200
            assert (await one.get("/readyz")).status_code == 200

    asyncio.run(act())


def scope_of(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
        "client": ("192.0.2.1", 1),
        "server": ("service", 80),
        "scheme": "http",
        "http_version": "1.1",
    }


def test_nothing_is_computed_for_a_client_that_went() -> None:
    model: Any = HeldModel()

    async def act() -> None:
        app = create_app(model, limits=Limits(batch_seconds=0.0))
        left, sent = asyncio.Event(), []

        async def stays() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        def request(goes: bool) -> asyncio.Task[None]:
            messages = [{"type": "http.request", "body": GOOD}]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                if not goes:
                    return await stays()
                await left.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message["type"])

            return asyncio.create_task(app(scope_of("/v1/segment"), receive, send))

        async with app.router.lifespan_context(app):
            first = request(goes=False)
            await asyncio.to_thread(model.has_begun.wait, 20)
            second = request(goes=True)
            await asyncio.sleep(0.3)
            left.set()
            await asyncio.wait_for(second, 10)
            assert sent == []
            model.may_go.set()
            await asyncio.wait_for(first, 10)
            assert sent[0] == "http.response.start"
        assert model.seen == 1

    asyncio.run(act())


@pytest.mark.parametrize("pieces", [[], [GOOD[:100]]])
def test_a_body_that_does_not_arrive(pieces: list[bytes]) -> None:
    async def act() -> None:
        app = create_app(small.segmenter(), limits=Limits(body_seconds=0.1))
        given, sent = list(pieces), []

        async def receive() -> dict[str, Any]:
            if given:
                return {"type": "http.request", "body": given.pop(), "more_body": True}
            await asyncio.Event().wait()
            return {}

        async def send(message: Any) -> None:
            sent.append(message)

        async with app.router.lifespan_context(app):
            await asyncio.wait_for(app(scope_of("/v1/segment"), receive, send), 10)
        assert sent[0]["status"] == 408
        assert b"did not arrive within 0.1 seconds" in sent[1]["body"]

    asyncio.run(act())


def test_a_defect_is_one_line_without_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    def broken(query: np.ndarray) -> np.ndarray:
        raise RuntimeError("inner words")

    with small.client(attack=broken) as client:
        answer = client.post("/v1/reconstruct", content=GOOD, headers=small.PNG)
        assert answer.status_code == 500
        assert answer.json() == {"detail": "this request failed; the service goes on"}
        assert answer.headers["content-security-policy"] == POLICY
        assert "inner words" in caplog.text  # the operator's
        assert client.post("/v1/segment", content=GOOD, headers=small.PNG).status_code == 200


def test_figures_and_log_tell_of_requests_and_of_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "fl_ppseg.service"), small.client() as client:
        client.post("/v1/segment?height=9", content=GOOD, headers=small.PNG)
        client.post("/v1/segment", content=small.png(small.photograph()), headers=small.PNG)
        client.get("/somebody/else")
        text = client.get("/metrics").text
    for line in (
        'fl_ppseg_requests_total{route="/v1/segment",status="200"} 1.0',
        'fl_ppseg_requests_total{route="/v1/segment",status="422"} 1.0',
        'fl_ppseg_requests_total{route="other",status="404"} 1.0',
        "fl_ppseg_refused_as_plain_total 1.0",
        "fl_ppseg_batch_size_count 1.0",
        "fl_ppseg_requests_inside 0.0",
    ):
        assert line in text
    lines = [record.getMessage() for record in caplog.records if record.name == "fl_ppseg.service"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", "/v1/segment", "200"],
        ["POST", "/v1/segment", "422"],
        ["GET", "other", "404"],
        ["GET", "/metrics", "200"],
    ]
    assert "testclient" not in caplog.text and "somebody" not in text


def test_the_page_is_its_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "secret.py").write_text("x")
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "a.png").write_bytes(b"png")
    found = page_files(tmp_path)
    assert found == {
        "index.html": PageFile(b"<!doctype html>", "text/html; charset=utf-8"),
        "scenes/a.png": PageFile(b"png", "image/png"),
    }
    with small.client(page=found) as client:
        index = client.get("/")
        assert (index.text, index.headers["cache-control"]) == ("<!doctype html>", "no-cache")
        assert index.headers["content-security-policy"] == POLICY
        assert client.get("/page/scenes/a.png").headers["content-type"] == "image/png"
        for path in ("secret.py", "../secret.py", "%2e%2e/limits.py", "/etc/passwd", "scenes", ""):
            assert client.get(f"/page/{path}").status_code == 404, path
    with small.client(page={}) as client:
        assert client.get("/").status_code == 404
