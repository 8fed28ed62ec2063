"""What is answered to those whose append fails."""

from __future__ import annotations

from trunkline.core.errors import DiskFull, DiskReadOnly, StreamClosed, TrunklineError


def definite(error: TrunklineError) -> TrunklineError:
    """The answer to appends of which nothing was written."""
    return error if isinstance(error, DiskFull | DiskReadOnly) else StreamClosed(error.message)


def again(error: TrunklineError) -> TrunklineError:
    """The same refusal for one more caller; an exception that is raised twice gathers tracebacks."""
    return type(error)(error.message, **error.fields)
