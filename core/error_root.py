"""What all errors that server and client share are made of."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

DOMAIN = "trunkline"
"""google.rpc.ErrorInfo.domain of every error that Trunkline raises."""


class Violation(NamedTuple):
    """One broken rule: which field, which rule, and the value that broke it (shortened)."""

    field: str
    rule: str
    value: str


class TrunklineError(Exception):
    """The root. Only leaves are raised; a leaf has a `code` of its own."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, **fields: str) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
        """What stands in google.rpc.ErrorInfo.metadata."""
