"""Length-prefixed messages with slices of one growing string."""

from __future__ import annotations

import struct


def framed(message: bytes, compressed: bool = False) -> bytes:
    """One message as it goes over the wire."""
    return struct.pack(">BI", compressed, len(message)) + message


class Inbox:
    """Keeps all that came, and reads it from the beginning each time."""

    def __init__(self, message_max: int) -> None:
        self.message_max = message_max
        self._came = b""
        self._taken = 0

    def feed(self, data: bytes) -> None:
        self._came += data

    def read(self) -> tuple[list[tuple[bool, bytes]], bytes, str]:
        """All messages so far, what is left over, and the fault: "", "flag" or "long"."""
        messages: list[tuple[bool, bytes]] = []
        rest = self._came
        while len(rest) >= 5:
            flag, length = struct.unpack(">BI", rest[:5])
            if flag > 1:
                return messages, rest, "flag"
            if length > self.message_max:
                return messages, rest, "long"
            if len(rest) < 5 + length:
                break
            messages.append((bool(flag), rest[5 : 5 + length]))
            rest = rest[5 + length :]
        return messages, rest, ""


class Outbox:
    """One string of what is framed, and a list of pieces."""

    def __init__(self) -> None:
        self._framed = b""
        self._pieces: list[bytes] = []

    def push(self, message: bytes, compressed: bool) -> None:
        while self._pieces:
            self._gather(1 << 30)
        self._framed += framed(message, compressed)

    def offer(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def pull(self, length: int, message_max: int) -> bytes:
        if not self._framed and self._pieces:
            self._gather(message_max)
        pulled, self._framed = self._framed[:length], self._framed[length:]
        return pulled

    def _gather(self, message_max: int) -> None:
        message = self._pieces.pop(0)
        while self._pieces and len(message) + len(self._pieces[0]) <= message_max:
            message += self._pieces.pop(0)
        self._framed += framed(message)
