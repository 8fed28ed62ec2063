"""The whole state of a watch's scope as of one revision, encoded part by part and shared by all who need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trunkline.core.model import RegisteredInstance
from trunkline.core.selector import Selector

from . import wire
from .policy_view import HeldPolicy
from .watch_config import WatchConfig


class WatchSnapshot:
    """Policies and instances as they were when it was made; they are immutable, so holding them is the copy. Policies are
    a sequence that may make each when it is asked for.

    Parts are made on demand, a bounded amount of work at a time, and kept while the snapshot is the newest of its
    scope. After that they are made again for whoever is still in the middle of it, so that slow readers hold
    references, not megabytes.
    """

    def __init__(
        self,
        revision: int,
        instances: Sequence[RegisteredInstance],
        policies: Sequence[HeldPolicy],
        *,
        selector: Selector,
        token: bytes,
        encode: Callable[[RegisteredInstance], bytes],
        config: WatchConfig,
    ) -> None:
        self.revision = revision
        self.policies_looked_at = 0
        """How many have been encoded for its parts so far."""
        self._policies = policies
        self._instances = instances
        self._selector = selector
        self._token = token
        self._encode = encode
        self._config = config
        self._members: list[list[HeldPolicy | RegisteredInstance]] = []
        """What stands in each part that is known."""
        self._parts: list[bytes | None] = []
        self._complete = False
        """All parts are known."""
        self._scanned = 0
        self._open: list[HeldPolicy | RegisteredInstance] = []
        self._open_bytes = 0
        self._current = True

    def release(self) -> None:
        """There is a newer one: keep no encoded parts from now on."""
        self._current = False
        self._parts = [None] * len(self._parts)

    def is_last(self, part: int) -> bool:
        """Whether this part, which has been made, completes the snapshot."""
        return self._complete and part == len(self._members) - 1

    def part(self, index: int) -> bytes | None:
        """Event body of a part; None when work was done and the part is not whole yet: ask again.

        Parts are asked for in order: `index` is at most one above those that were made.
        """
        if index < len(self._members):
            return self._parts[index] or self._body(index)
        assert index == len(self._members)
        assert not self._complete
        return self._advance()

    def _advance(self) -> bytes | None:
        """Look at more until a part is whole."""
        config = self._config
        last = len(self._policies) + len(self._instances)
        stop = min(last, self._scanned + config.scan_instances_max)
        while self._scanned < stop:
            item = self._item(self._scanned)
            if not isinstance(item, RegisteredInstance) or self._selector.matches(item):
                size = self._size_of(item) + 1
                full = len(self._open) >= config.part_instances_max
                if self._open and (full or self._open_bytes + size > config.part_bytes_max):
                    return self._close()  # this one begins the next part
                self._open.append(item)
                self._open_bytes += size
            self._scanned += 1
        if self._scanned < last:
            return None
        self._complete = True
        return self._close()

    def _item(self, number: int) -> HeldPolicy | RegisteredInstance:
        behind = number - len(self._policies)
        return self._policies[number] if behind < 0 else self._instances[behind]

    def _size_of(self, item: HeldPolicy | RegisteredInstance) -> int:
        if isinstance(item, RegisteredInstance):
            return len(self._encode(item))
        self.policies_looked_at += 1
        return len(item.encoded)

    def _close(self) -> bytes:
        self._members.append(self._open)
        self._open = []
        self._open_bytes = 0
        body = self._body(len(self._members) - 1)
        self._parts.append(body if self._current else None)
        return body

    def _body(self, index: int) -> bytes:
        last = self.is_last(index)
        members = self._members[index]
        return wire.event_body(
            wire.SNAPSHOT,
            self.revision,
            token=self._token if last else b"",
            complete=last,
            upserted=[self._encode(one) for one in members if isinstance(one, RegisteredInstance)],
            policies=[one.encoded for one in members if not isinstance(one, RegisteredInstance)],
        )
