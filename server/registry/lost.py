"""Why leases ended: what a holder is told whose keep-alive comes too late."""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum


class LostReason(IntEnum):
    """Why a lease is not there. Values are the contract's LostLease.Reason."""

    UNKNOWN = 1
    EXPIRED = 2
    DEREGISTERED = 3
    TAKEN_OVER = 4


class LostLeases:
    """The last `limit` leases that ended. In memory: after a restart nothing is known of those before."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._reasons: OrderedDict[int, LostReason] = OrderedDict()

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, lease_id: int, reason: LostReason) -> None:
        """It has ended."""
        self._reasons[lease_id] = reason
        self._reasons.move_to_end(lease_id)
        if len(self._reasons) > self._limit:
            self._reasons.popitem(last=False)

    def discard(self, lease_id: int) -> None:
        """It is there again."""
        self._reasons.pop(lease_id, None)

    def reason(self, lease_id: int) -> LostReason:
        """Why it ended."""
        return self._reasons.get(lease_id, LostReason.UNKNOWN)
