"""Which request ids were carried out lately, so that a call may be repeated."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any

REQUESTS_MAX = 100_000
REQUEST_WINDOW_NS = 600_000_000_000
"""How long a request id is remembered, in the control stream's time."""

Request = tuple[str, int, int]
"""Its id, the revision at which it was carried out, and the stream's time in nanoseconds."""


class RecentRequests:
    """Request id to revision, bounded by count and by stream time. Rebuilt by replay."""

    def __init__(self, *, limit: int = REQUESTS_MAX, window_ns: int = REQUEST_WINDOW_NS) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._by_id: dict[str, Request] = {}
        self._order: deque[Request] = deque()  # of an id that was added again, only the last one counts

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, request_id: str) -> int | None:
        """The revision at which the request was carried out, or None."""
        found = self._by_id.get(request_id)
        return None if found is None else found[1]

    def items(self) -> list[Request]:
        """What counts, oldest first. A copy that takes no longer than a snapshot may hold the loop."""
        if len(self._order) == len(self._by_id):
            return list(self._order)
        return [request for request in self._order if self._by_id[request[0]] is request]

    def add(self, request_id: str, revision: int, time_ns: int) -> None:
        """The request was carried out at this revision and stream time."""
        added = self._by_id[request_id] = (request_id, revision, time_ns)
        self._order.append(added)
        while len(self._order) > self._limit or self._order[0][2] < time_ns - self._window_ns:
            oldest = self._order.popleft()
            if self._by_id[oldest[0]] is oldest:
                del self._by_id[oldest[0]]


def request_id_by(author: str, request: Any) -> str:
    """What the mutating request of an author is known by; empty when it bears no `request_id`.

    The id alone would do only if nobody ever chose one twice. With it goes a digest of who asks and of all that is
    asked, so that nothing but the same request again is answered as done.
    """
    if not request.request_id:
        return ""
    asked = (author, request.DESCRIPTOR.full_name, request.SerializeToString(deterministic=True))
    return f"{request.request_id}:{hashlib.blake2b(repr(asked).encode(), digest_size=8).hexdigest()}"
