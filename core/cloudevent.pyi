from collections.abc import Buffer
from typing import NamedTuple

EVENT_BYTES_MAX: int
KEY_BYTES_MAX: int
ATTRIBUTES_MAX: int
ATTRIBUTE_NAME_BYTES_MAX: int

class EventScan(NamedTuple):
    topic: str
    key: str
    source: str
    id: str

def scan_event(body: Buffer) -> EventScan: ...
def event_identity(body: Buffer) -> tuple[bytes, bytes]: ...
