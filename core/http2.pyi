from typing import Final, final

from typing_extensions import Buffer

from .http2_stream import Budget, Stream
from .http2_wire import Wire

NO_ERROR: Final[int]
PROTOCOL_ERROR: Final[int]
INTERNAL_ERROR: Final[int]
SETTINGS_TIMEOUT: Final[int]
CANCEL: Final[int]
ENHANCE_YOUR_CALM: Final[int]
BAD_PREFACE: Final[int]
LIBRARY: Final[str]

@final
class Limits:
    streams_max: Final[int]
    header_bytes_max: Final[int]
    message_bytes_max: Final[int]
    stream_window_bytes: Final[int]
    connection_window_bytes: Final[int]
    unread_bytes_max: Final[int]
    resets_per_s_max: Final[float]
    settings_per_s_max: Final[float]
    empty_frames_per_s_max: Final[float]
    ping_interval_ns_min: Final[int]
    def __init__(
        self,
        *,
        streams_max: int,
        header_bytes_max: int,
        message_bytes_max: int,
        stream_window_bytes: int,
        connection_window_bytes: int,
        unread_bytes_max: int,
        resets_per_s_max: float,
        settings_per_s_max: float,
        empty_frames_per_s_max: float,
        ping_interval_ns_min: int,
    ) -> None: ...

@final
class Session(Wire):
    limits: Final[Limits]
    streams: Final[dict[int, Stream]]
    cut_by: Final[str]
    is_greeted: Final[bool]
    is_leaving: Final[bool]
    error: Final[int]
    headers_since_ns: Final[int]
    pings_answered: Final[int]
    requests: Final[int]
    def __init__(self, limits: Limits, budget: Budget) -> None: ...
    @property
    def wants_write(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
    def receive(self, data: Buffer, now_ns: int) -> list[Stream]: ...
    def send(self, limit: int) -> bytes: ...
    def relieved(self) -> list[Stream]: ...
    def ping(self, payload: bytes) -> None: ...
    def give_notice(self) -> None: ...
    def leave(self, code: int = 0, text: bytes = b"") -> None: ...
    def cut(self, limit: str, code: int = 11) -> None: ...
    def close(self) -> list[Stream]: ...
