"""A client that does what the contract says a watching client does, and nothing cleverer; and a sink for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from guarantees import Seen

from trunkline.api.v1 import common_pb2, discovery_pb2
from trunkline.api.v1.policy_pb2 import EffectivePolicy

Policies = dict[str, EffectivePolicy]
"""By service; in a watch of a whole namespace "" is what holds for all others."""


class MemorySink:
    """A Sink that keeps what it is offered; `full` makes it refuse more, as a slow reader does."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.full = False
        self.offered = 0
        self._on_ready: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        return not self.full

    @property
    def pending_bytes(self) -> int:
        return sum(map(len, self.messages))

    def offer(self, data: bytes | Sequence[bytes]) -> bool:
        self.messages.append(data if isinstance(data, bytes) else b"".join(data))
        self.offered += 1
        return not self.full

    def on_ready(self, callback: Callable[[], None]) -> None:
        self._on_ready.append(callback)

    def drain(self) -> None:
        """The reader caught up."""
        self.full = False
        for callback in self._on_ready:
            callback()

    def take(self) -> discovery_pb2.WatchResponse:
        """Everything offered since the last time, concatenated: one message."""
        message = discovery_pb2.WatchResponse.FromString(b"".join(self.messages))
        self.messages.clear()
        return message


class ModelWatcher:
    """One watch of one client, across the streams that it opens and loses.

    `view` is what it would route by. `seen` has one entry per event that it swapped in.
    """

    def __init__(self, watch_id: int) -> None:
        self.watch_id = watch_id
        self.view: dict[tuple[str, str], common_pb2.RegisteredInstance] = {}
        self.revision = 0
        self.token = b""
        self.seen: list[Seen] = []
        self.tokens: list[tuple[bytes, int, dict[tuple[str, str], common_pb2.RegisteredInstance]]] = []
        """Every token it was given, with the revision and the view that it stands for."""
        self.policies: Policies = {}
        self.held: list[tuple[int, Policies]] = []
        """The policies at each event that it swapped in, with its revision."""
        self.told: list[list[str]] = []
        """Whose policies each event told."""
        self.error: common_pb2.Failure | None = None
        self.ended = False
        self._staged_policies: Policies = {}
        self._staged: dict[tuple[str, str], common_pb2.RegisteredInstance] | None = None
        self._resumed = False

    def reopened(self, *, resumed: bool) -> None:
        """Its stream was lost and it opened another: what was staged is worth nothing."""
        self._staged = None
        self._staged_policies = {}
        self._resumed = resumed
        self.ended = False
        self.error = None

    def go_back_to(self, index: int) -> None:
        """Be the client that was given an earlier token and nothing since."""
        self.token, self.revision, view = self.tokens[index]
        self.view = dict(view)
        self.tokens = self.tokens[: index + 1]
        self.held = self.held[: index + 1]
        self.policies = dict(self.held[index][1])

    def apply(self, event: discovery_pb2.WatchEvent) -> None:
        """Take in an event of this watch."""
        assert event.watch_id == self.watch_id
        self.told.append([effective.service for effective in event.policies])
        assert not self.ended, "an event after the watch had ended"
        kinds = discovery_pb2.WatchEvent
        if event.kind == kinds.KIND_ENDED:
            self.ended = True
            self.error = event.error if event.HasField("error") else None
            return
        if event.kind == kinds.KIND_SNAPSHOT:
            self._stage(event)
            if not event.complete:
                assert not event.resume_token, "a part of a snapshot is nothing to resume from"
                return
            assert self._staged is not None
            self.view, self._staged = self._staged, None
            self.policies, self._staged_policies = self._staged_policies, {}
            self._swapped("snapshot", event)
            return
        assert self._staged is None, "something else was told in the middle of a snapshot"
        assert not event.complete
        if event.kind == kinds.KIND_CHANGES:
            self._merge(self.view, event)
            self._merge_policies(self.policies, event)
            self._swapped("changes", event)
        else:
            assert event.kind == kinds.KIND_BOOKMARK
            assert not event.upserted
            assert not event.removed
            assert not event.policies
            self._swapped("bookmark", event)

    def _stage(self, event: discovery_pb2.WatchEvent) -> None:
        if self._staged is None:
            self._staged = {}
        assert not event.removed
        before = len(self._staged)
        self._merge(self._staged, event)
        assert len(self._staged) == before + len(event.upserted), "an instance stands twice in one snapshot"
        before = len(self._staged_policies)
        self._merge_policies(self._staged_policies, event)
        assert len(self._staged_policies) == before + len(event.policies), "a policy stands twice in one snapshot"

    @staticmethod
    def _merge(view: dict[tuple[str, str], common_pb2.RegisteredInstance], event: discovery_pb2.WatchEvent) -> None:
        for registered in event.upserted:
            view[registered.instance.service, registered.instance.id] = registered
        for ref in event.removed:
            view.pop((ref.service, ref.id), None)

    @staticmethod
    def _merge_policies(policies: Policies, event: discovery_pb2.WatchEvent) -> None:
        for effective in event.policies:
            policies[effective.service] = effective

    def _swapped(self, kind: str, event: discovery_pb2.WatchEvent) -> None:
        assert event.resume_token, "what a client swaps in can be resumed from"
        self.revision = event.revision
        self.token = event.resume_token
        self.tokens.append((self.token, self.revision, dict(self.view)))
        self.held.append((self.revision, dict(self.policies)))
        self.seen.append(
            Seen(
                kind=kind,  # type: ignore[arg-type]
                revision=event.revision,
                view={key: registered.modified_revision for key, registered in self.view.items()},
                upserted={(r.instance.service, r.instance.id): r.modified_revision for r in event.upserted},
                removed=frozenset((ref.service, ref.id) for ref in event.removed),
                resumed=self._resumed,
            )
        )
        self._resumed = False
