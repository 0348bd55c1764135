"""Who is let in: so many requests at once, so many of one address, and so many a minute."""

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from fastapi import HTTPException

from fl_ppseg.service.limits import Limits

MAX_ADDRESSES: Final = 10_000
"""That are remembered; then the one that has been quiet for longest is forgotten."""
BUSY_SECONDS: Final = 1
"""After which a client may try again when the service is full."""


class Admission:
    """Counts requests. Not shared between threads: the event loop's alone."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._inside: Counter[str] = Counter()

    @property
    def num_inside(self) -> int:
        """Requests that were let in and are not answered yet."""
        return self._inside.total()

    @property
    def is_full(self) -> bool:
        """Whether nobody is let in at the moment."""
        return self.num_inside >= self._limits.max_requests

    @contextmanager
    def admitted(self, host: str) -> Iterator[None]:
        """Let a client's request in, for the time of a `with`.

        Raises:
            HTTPException: 429 where the client asks too often or too much at once, 503 where the
                service is full; both with `Retry-After`.
        """
        address = network_of(host)
        self._take(address)
        if self.is_full:
            raise _later(
                HTTPStatus.SERVICE_UNAVAILABLE, "the service is busy; try again", BUSY_SECONDS
            )
        if self._inside[address] >= max(1, self._limits.max_requests // 2):
            raise _later(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests of this address at once; wait for their answers",
                BUSY_SECONDS,
            )
        self._inside[address] += 1
        try:
            yield
        finally:
            self._inside[address] -= 1
            if not self._inside[address]:
                del self._inside[address]

    def _take(self, address: str) -> None:
        """Take one of the address' tokens; they come back at the rate of the limits."""
        now, rate = self._clock(), self._limits.requests_per_minute / 60
        left, since = self._buckets.pop(address, (float(self._limits.burst), now))
        left = min(self._limits.burst, left + (now - since) * rate)
        is_refused = left < 1
        self._buckets[address] = (left if is_refused else left - 1, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        if is_refused:
            raise _later(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._limits.requests_per_minute} requests a minute of this address",
                math.ceil((1 - left) / rate),
            )


def network_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 host has for itself.

    >>> network_of("192.0.2.7"), network_of("2001:db8::1"), network_of("::ffff:192.0.2.7")
    ('192.0.2.7', '2001:db8::/64', '192.0.2.7')
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # of a socket without addresses
        return host[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, 64), strict=False))


def _later(status: HTTPStatus, why: str, seconds: int) -> HTTPException:
    return HTTPException(status, why, {"Retry-After": str(seconds)})
