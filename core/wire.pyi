from array import array
from typing import final

from trunkline.core.cloudevent import EventScan as EventScan
from trunkline.core.cloudevent import event_identity as event_identity
from trunkline.core.cloudevent import scan_event as scan_event

EVENTS_MAX: int
STREAM_DEFAULT: str

@final
class Scan:
    @property
    def namespace(self) -> str: ...
    @property
    def stream(self) -> str:
        """STREAM_DEFAULT when the request names none."""
    @property
    def require_sync(self) -> int:
        """A value of the contract's Sync; 0 requires nothing."""
    @property
    def sequence(self) -> int:
        """Of a PublishStreamRequest, else 0."""
    @property
    def expected_offset(self) -> int | None:
        """What the first event must get."""
    @property
    def producer(self) -> str:
        """Who numbered the events; empty when nobody did."""
    @property
    def producer_epoch(self) -> int: ...
    @property
    def first_sequence(self) -> int:
        """Number of the first event, at least 1; 0 without a producer."""
    @property
    def count(self) -> int:
        """How many events."""
    @property
    def payload(self) -> memoryview | bytes:
        """The events' frames, one behind the other: 7A, length as the shortest varint, event."""
    @property
    def ends(self) -> array[int]:
        """Typecode I, one per event: where its frame ends in payload."""
    @property
    def topic_ids(self) -> array[int]:
        """Typecode H, one per event: index into topics."""
    @property
    def topics(self) -> list[str]:
        """Distinct, in order of first use."""
    @property
    def key_hashes(self) -> array[int]:
        """Typecode Q, one per event: xxh64 of the partition key, 0 without one."""
    @property
    def id_hashes(self) -> array[int]:
        """Typecode Q, two per event, low and high half of a 128-bit hash of (source, id).

        With seed 0 for the low half and 0x9E3779B97F4A7C15 for the high one: xxh64(id, xxh64(source, seed)).
        """

def scan_publish(data: bytes, *, stream_request: bool) -> Scan: ...
