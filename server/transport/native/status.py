"""Statuses as numbers of the wire and as grpc.StatusCode."""

from __future__ import annotations

from typing import Any

import grpc

OK = grpc.StatusCode.OK
_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class Ended(Exception):
    """The transport ends a call with this status, whatever its handler does."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


def status_of(code: Any) -> grpc.StatusCode:
    """A status by itself or by its number; UNKNOWN for what is neither, as in grpcio."""
    if isinstance(code, grpc.StatusCode):
        return code
    return _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN) if isinstance(code, int) else grpc.StatusCode.UNKNOWN


def code_number(code: grpc.StatusCode) -> int:
    """Its number."""
    number: int = code.value[0]
    return number
