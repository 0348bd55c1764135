"""What the service bears at most: of one request, of one address, and of all together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds, each wide enough for a frame of Cityscapes and its user."""

    max_bytes: int = 2**23
    """Of a request's body: 8 MiB; an encrypted PNG of `max_pixels` has 6.3 MB."""
    max_pixels: int = 2**21
    """Of a query, and of an answer: 1024 x 2048."""
    max_requests: int = 64
    """Accepted and not yet answered, of all clients; of one address half as many."""
    max_batch: int = 8
    """Queries that the model segments at once."""
    batch_seconds: float = 0.005
    """How long a query waits for others of its size while the model is free and others may come."""
    body_seconds: float = 20.0
    """Within which a body has to arrive."""
    requests_per_minute: int = 600
    """Of one address, in the long run."""
    burst: int = 60
    """Of one address at once."""
