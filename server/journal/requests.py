"""Which request ids were carried out lately, so that a call may be repeated."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

REQUESTS_MAX = 100_000
REQUEST_WINDOW_NS = 600_000_000_000
"""How long a request id is remembered, in the control stream's time."""


class RecentRequests:
    """Request id to revision, bounded by count and by stream time. Rebuilt by replay."""

    def __init__(self, *, limit: int = REQUESTS_MAX, window_ns: int = REQUEST_WINDOW_NS) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._revisions: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._revisions)

    def get(self, request_id: str) -> int | None:
        """The revision at which the request was carried out, or None."""
        found = self._revisions.get(request_id)
        return None if found is None else found[0]

    def items(self) -> list[tuple[str, int, int]]:
        """(request id, revision, time in nanoseconds), oldest first."""
        return [(request_id, revision, time_ns) for request_id, (revision, time_ns) in self._revisions.items()]

    def add(self, request_id: str, revision: int, time_ns: int) -> None:
        """The request was carried out at this revision and stream time."""
        self._revisions[request_id] = (revision, time_ns)
        self._revisions.move_to_end(request_id)
        while len(self._revisions) > self._limit or self._oldest_time() < time_ns - self._window_ns:
            self._revisions.popitem(last=False)

    def _oldest_time(self) -> int:
        return next(iter(self._revisions.values()))[1]


def request_id_by(author: str, request: Any) -> str:
    """What the mutating request of an author is known by; empty when it bears no `request_id`.

    The id alone would do only if nobody ever chose one twice. With it goes a digest of who asks and of all that is
    asked, so that nothing but the same request again is answered as done.
    """
    if not request.request_id:
        return ""
    asked = (author, request.DESCRIPTOR.full_name, request.SerializeToString(deterministic=True))
    return f"{request.request_id}:{hashlib.blake2b(repr(asked).encode(), digest_size=8).hexdigest()}"
