"""Discovery's answers as bytes, put together from pieces that are encoded once and shared.

Only what is sent to many is written by hand: a watch event after its `watch_id`, the instances in it, the header. The
tags are the contract's, and a test compares the result with what protobuf makes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from trunkline.api import convert
from trunkline.api.v1 import common_pb2, discovery_pb2
from trunkline.core.model import RegisteredInstance

SNAPSHOT = discovery_pb2.WatchEvent.KIND_SNAPSHOT
CHANGES = discovery_pb2.WatchEvent.KIND_CHANGES
BOOKMARK = discovery_pb2.WatchEvent.KIND_BOOKMARK
ENDED = discovery_pb2.WatchEvent.KIND_ENDED

ENCODED_INSTANCES_MAX = 200_000
"""Instances whose encoding is kept; the one encoded first goes first."""

_RESPONSE_HEADER = b"\x0a"
_RESPONSE_EVENT = b"\x12"
_RESOLVED_INSTANCE = b"\x12"
_EVENT_WATCH_ID = b"\x08"
_EVENT_KIND = b"\x10"
_EVENT_REVISION = b"\x18"
_EVENT_TOKEN = b"\x22"
_EVENT_COMPLETE = b"\x28\x01"
_EVENT_UPSERTED = b"\x32"
_EVENT_REMOVED = b"\x3a"
_EVENT_POLICY = b"\x4a"


def varint(value: int) -> bytes:
    """Protobuf's base-128 encoding of an unsigned integer."""
    if value < 0x80:
        return value.to_bytes(1, "little")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def framed(data: bytes) -> bytes:
    """`data` behind its length, as it stands in a field of its kind."""
    return varint(len(data)) + data


def header(journal_id: str, incarnation: int, revision: int) -> bytes:
    """Field `header`, which is the first of every answer."""
    message = common_pb2.ResponseHeader(journal_id=journal_id, incarnation=incarnation, revision=revision)
    return _RESPONSE_HEADER + framed(message.SerializeToString())


def event_body(
    kind: int,
    revision: int,
    *,
    token: bytes = b"",
    complete: bool = False,
    upserted: Iterable[bytes] = (),
    removed: Iterable[bytes] = (),
    policies: Iterable[bytes] = (),
) -> bytes:
    """A WatchEvent without its `watch_id`. `upserted` and `removed` are framed messages, `policies` bare ones."""
    pieces = [_EVENT_KIND, varint(kind), _EVENT_REVISION, varint(revision)]
    if token:
        pieces += (_EVENT_TOKEN, framed(token))
    if complete:
        pieces.append(_EVENT_COMPLETE)
    for instance in upserted:
        pieces += (_EVENT_UPSERTED, instance)
    for ref in removed:
        pieces += (_EVENT_REMOVED, ref)
    for policy in policies:
        pieces += (_EVENT_POLICY, framed(policy))
    return b"".join(pieces)


def event(watch_id: int, body: bytes) -> bytes:
    """A whole event as it stands in a WatchResponse: tag, length, the watch's id, the shared body."""
    own = _EVENT_WATCH_ID + varint(watch_id)
    return b"".join((_RESPONSE_EVENT, varint(len(own) + len(body)), own, body))


def ended(watch_id: int, revision: int, failure: common_pb2.Failure | None) -> bytes:
    """The last event of a watch, whole. Without a failure it was the client that ended it."""
    event = discovery_pb2.WatchEvent(watch_id=watch_id, kind=ENDED, revision=revision, error=failure)
    return _RESPONSE_EVENT + framed(event.SerializeToString())


def instance_ref(service: str, instance_id: str) -> bytes:
    """A framed InstanceRef."""
    return framed(common_pb2.InstanceRef(service=service, id=instance_id).SerializeToString())


def resolved(instances: Iterable[bytes]) -> bytes:
    """A ResolveResponse without its header."""
    pieces: list[bytes] = []
    for instance in instances:
        pieces += (_RESOLVED_INSTANCE, instance)
    return b"".join(pieces)


class EncodedInstances:
    """Each instance encoded once per change, for everybody who is told of it."""

    def __init__(self, *, instances_max: int = ENCODED_INSTANCES_MAX) -> None:
        self._max = instances_max
        self._kept: OrderedDict[tuple[str, str, str], tuple[RegisteredInstance, bytes]] = OrderedDict()
        self.made = 0
        """Encodings so far: what the rest of the work is weighed by."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, registered: RegisteredInstance) -> bytes:
        """The framed RegisteredInstance."""
        instance = registered.instance
        key = (instance.namespace, instance.service, instance.id)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is registered:
            return kept[1]
        self.made += 1
        encoded = framed(convert.registered_to(registered).SerializeToString(deterministic=True))
        if kept is None and len(self._kept) >= self._max:
            self._kept.popitem(last=False)
        if kept is not None and kept[0].modified_revision > registered.modified_revision:
            return encoded  # an older state, for a reader that is behind: the newer one is wanted more often
        self._kept[key] = (registered, encoded)
        return encoded

    def forget(self, namespace: str, service: str, instance_id: str) -> None:
        """It is gone."""
        self._kept.pop((namespace, service, instance_id), None)
