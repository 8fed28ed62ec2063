"""What all errors that server and client share are made of, and the one that says which rules a request breaks."""

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


class InvalidArgument(TrunklineError):
    """The request breaks rules, each named in `violations`. Nothing was changed."""

    code = "INVALID_ARGUMENT"
    status = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation) -> None:
        shown = "; ".join(f"{v.field}: {v.rule}, got {v.value}" for v in violations)
        super().__init__(shown)
        self.violations = violations

    @classmethod
    def of(cls, field: str, rule: str, value: object) -> InvalidArgument:
        """One violation, its value shortened to 80 characters."""
        text = repr(value) if isinstance(value, str | bytes) else str(value)
        return cls(Violation(field, rule, text if len(text) <= 80 else text[:77] + "..."))
