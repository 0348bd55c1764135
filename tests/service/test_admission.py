"""Who is let in: rates and numbers, by a clock that the test turns."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fastapi import HTTPException

from fl_ppseg.service import admission
from fl_ppseg.service.admission import Admission
from fl_ppseg.service.limits import Limits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def status(service: Admission, host: str) -> tuple[int, str]:
    """Of a request that is answered at once; 200 where it is let in."""
    try:
        with service.admitted(host):
            return 200, ""
    except HTTPException as refused:
        assert refused.headers is not None
        return refused.status_code, refused.headers["Retry-After"]


def test_an_address_has_a_burst_and_then_a_rate(clock: Clock) -> None:
    service = Admission(Limits(requests_per_minute=30, burst=3), clock)
    assert [status(service, "192.0.2.1")[0] for _ in range(4)] == [200, 200, 200, 429]
    assert status(service, "192.0.2.1") == (429, "2")
    assert status(service, "192.0.2.2")[0] == 200
    clock.now += 1.9
    assert status(service, "192.0.2.1") == (429, "1")
    clock.now += 0.2
    assert [status(service, "192.0.2.1")[0] for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [status(service, "192.0.2.1")[0] for _ in range(4)] == [200, 200, 200, 429]


def test_an_ipv6_host_is_its_network(clock: Clock) -> None:
    service = Admission(Limits(requests_per_minute=1, burst=1), clock)
    assert status(service, "2001:db8::1")[0] == 200
    assert status(service, "2001:db8::ffff")[0] == 429
    assert status(service, "2001:db8:0:1::1")[0] == 200


def test_addresses_are_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_ADDRESSES", 3)
    service = Admission(Limits(requests_per_minute=1, burst=1), clock)
    for number in range(4):
        assert status(service, f"192.0.2.{number}")[0] == 200
    assert status(service, "192.0.2.3")[0] == 429
    assert status(service, "192.0.2.0")[0] == 200  # the quietest was forgotten


def test_one_address_gets_half_of_the_places_and_a_full_service_refuses(clock: Clock) -> None:
    service = Admission(Limits(max_requests=4), clock)
    with ExitStack() as inside:
        for _ in range(2):
            inside.enter_context(service.admitted("192.0.2.1"))
        assert status(service, "192.0.2.1") == (429, "1")
        inside.enter_context(service.admitted("192.0.2.2"))
        assert not service.is_full
        inside.enter_context(service.admitted("192.0.2.3"))
        assert service.is_full and service.num_inside == 4
        assert status(service, "192.0.2.4") == (503, "1")
    assert service.num_inside == 0
    assert status(service, "192.0.2.1")[0] == 200
