from collections.abc import Iterable
from typing import Any, Final, final

from .framing import Compressed, Inbox

TIMEOUT_NONE_NS: Final[int]
TIMEOUT_MALFORMED_NS: Final[int]

Headers = list[tuple[bytes, bytes]]

@final
class Budget:
    used_bytes: Final[int]
    bytes_max: Final[int]
    def __init__(self, bytes_max: int) -> None: ...

@final
class Account: ...

@final
class Stream:
    id: Final[int]
    path: Final[bytes]
    method: Final[bytes | None]
    encoding: Final[bytes | None]
    accept_encoding: Final[bytes | None]
    headers: Final[Headers]
    timeout_ns: Final[int]
    is_grpc: Final[bool]
    has_te: Final[bool]
    headers_too_large: Final[bool]
    is_requested: Final[bool]
    is_ended: Final[bool]
    is_closed: Final[bool]
    is_over_budget: Final[bool]
    reset_code: Final[int]
    sent_bytes: Final[int]
    inbox: Final[Inbox]
    call: Any
    piece_message_bytes_max: int
    @property
    def pending_bytes(self) -> int: ...
    @property
    def is_plain(self) -> bool: ...
    @property
    def is_whole(self) -> bool: ...
    @property
    def has_responded(self) -> bool: ...
    @property
    def is_finished(self) -> bool: ...
    def take(self) -> bytes | Compressed | None: ...
    def respond(self, headers: Headers | None = None) -> None: ...
    def write(self, message: bytes, compressed: bool = False) -> int: ...
    def offer(self, pieces: bytes | Iterable[bytes]) -> int: ...
    def want_room(self, low_water_bytes: int) -> None: ...
    def finish(self, trailers: Headers | None = None) -> None: ...
    def reply(self, message: bytes) -> None: ...
    def refuse(self, headers: Headers) -> None: ...
    def drop_pending(self) -> None: ...
    def reset(self, code: int) -> None: ...
