"""What a node's own pending records will make of the durable state, so that decisions need not wait for the disk."""

from __future__ import annotations

from typing import Any

from trunkline.core.records import Change, Version

from .fold import Folds


class _Pending:
    """A key with records on their way: what it will be, its newest record, and how many are outstanding."""

    __slots__ = ("change", "entity", "outstanding", "revision", "time_ns", "version")

    def __init__(self, change: Change, version: Version, revision: int, time_ns: int) -> None:
        self.change: Change | None = change
        """The first of them, until somebody asks what it makes of the entity. Almost always nobody does."""
        self.entity: Any | None = None
        """What the key will be, once `change` is None."""
        self.version = version
        self.revision = revision
        self.time_ns = time_ns
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
        return self._folds.get(key) if pending is None else self._entity(key, pending)

    def _entity(self, key: str, pending: _Pending) -> Any | None:
        change = pending.change
        if change is not None:
            durable = self._folds.get(key)
            pending.entity = self._folds.reduce(durable, change, revision=pending.revision, time_ns=pending.time_ns)
            pending.change = None
        return pending.entity

    def keys(self, prefix: str) -> list[str]:
        """Those that begin with this and have a record on its way."""
        return [key for key in self._pending if key.startswith(prefix)]

    def version(self, key: str) -> Version | None:
        """The key's newest pending record, or None."""
        pending = self._pending.get(key)
        return None if pending is None else pending.version

    def push(self, change: Change, version: Version, *, revision: int, time_ns: int) -> None:
        """A record of ours is on its way."""
        key = change.key
        pending = self._pending.get(key)
        if pending is None:
            self._pending[key] = _Pending(change, version, revision, time_ns)
            return
        entity = self._entity(key, pending)
        pending.entity = self._folds.reduce(entity, change, revision=revision, time_ns=time_ns)
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
