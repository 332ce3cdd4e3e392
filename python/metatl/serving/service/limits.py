"""Limits of the service: the size of a body, and the requests of one client."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST_CLIENTS = 10_000


class TooLargeError(Exception):
    """A body that is larger than allowed."""


async def read_body(request: Request, most: int) -> bytes:
    """Read the body of a request.

    Parameters
    ----------
    request : Request
        The request.
    most : int
        Largest size, in bytes.

    Raises
    ------
    TooLargeError
        As soon as more has come, or is announced.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > most:
        raise TooLargeError
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLargeError
        parts.append(part)
    return b"".join(parts)


class RateLimit:
    """A bucket of requests for each client, which refills at a rate (token bucket).

    Parameters
    ----------
    rate : float
        Requests a second. A client that was quiet may ask for as many at once, at least one.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._size = max(1.0, rate)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Take one request from the bucket of a client; false if it is empty."""
        now = time.monotonic()
        left, since = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return allowed
