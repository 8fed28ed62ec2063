"""What a node's own pending records will make of the durable state, so that decisions need not wait for the disk."""

from __future__ import annotations

from typing import Any

from ..record import Version
from .fold import Change, Folds


class _Pending:
    """A key with records on their way: what it will be, its newest record, and how many are outstanding."""

    __slots__ = ("entity", "outstanding", "version")

    def __init__(self, entity: Any | None, version: Version) -> None:
        self.entity = entity
        self.version = version
        self.outstanding = 1


class Overlay:
    """The pending state by key. Empty when nothing is on its way."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds
        self._pending: dict[str, _Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: str) -> bool:
        return key in self._pending

    def get(self, key: str) -> Any | None:
        """The entity as it will be."""
        pending = self._pending.get(key)
        return self._folds.get(key) if pending is None else pending.entity

    def version(self, key: str) -> Version | None:
        """The key's newest pending record, or None."""
        pending = self._pending.get(key)
        return None if pending is None else pending.version

    def push(self, change: Change, version: Version, *, revision: int, time_ns: int) -> None:
        """A record of ours is on its way."""
        entity = self._folds.reduce(self.get(change.key), change, revision=revision, time_ns=time_ns)
        pending = self._pending.get(change.key)
        if pending is None:
            self._pending[change.key] = _Pending(entity, version)
            return
        pending.entity = entity
        pending.version = version
        pending.outstanding += 1

    def pop(self, key: str) -> None:
        """A record of ours has been folded or skipped."""
        pending = self._pending.get(key)
        if pending is None:
            return  # dropped meanwhile
        pending.outstanding -= 1
        if not pending.outstanding:
            del self._pending[key]

    def drop(self) -> None:
        """Forget all of it: an append failed, and what rests on it with it."""
        self._pending.clear()
