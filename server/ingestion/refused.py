"""A refusal whose HTTP status its error does not say."""

from __future__ import annotations

from trunkline.core.errors import TrunklineError


class Refused(Exception):
    """What the request is answered with: a status of HTTP's own, and why.

    Most refusals are plain TrunklineErrors; this is for what only HTTP has: media types, lengths, bodies that do not come.
    """

    def __init__(self, status: int, error: TrunklineError) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
