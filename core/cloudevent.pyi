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

def scan_event(body: bytes | bytearray | memoryview) -> EventScan: ...
def event_identity(body: bytes | bytearray | memoryview) -> tuple[bytes, bytes]: ...
