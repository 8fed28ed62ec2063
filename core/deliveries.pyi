from array import array
from collections.abc import Sequence

_Bytes = bytes | bytearray | memoryview
_Ends = array[int] | memoryview

def subscription_prefix(subscription_id: int) -> bytes: ...
def delivery_suffix(offset: int, time_ns: int, frame: _Bytes) -> bytes: ...
def delivery(prefix: bytes, credit: int, attempt: int, suffix: bytes) -> bytes: ...
def first_deliveries(
    payload: _Bytes,
    ends: _Ends,
    offsets: Sequence[int],
    time_ns: int,
    indexes: Sequence[int],
    first: int,
    prefix: bytes,
    credit: int,
    bytes_limit: int,
) -> tuple[bytes, int]: ...
