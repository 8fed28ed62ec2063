"""Resume tokens of watches: made of a revision, checked when they come back."""

from __future__ import annotations

from trunkline.core.errors import RevisionInFuture, TokenForeign
from trunkline.core.hashing import xxh64
from trunkline.core.token import ControlToken

ScopeKey = tuple[str, str, str]
"""Namespace, service (empty for all), canonical selector."""


class TokenMaker:
    """Tokens of one journal in its present incarnation."""

    def __init__(self, journal_id: str, incarnation: int) -> None:
        self.journal_id = journal_id
        self.incarnation = incarnation

    def encode(self, revision: int, scope: ScopeKey) -> bytes:
        """Opaque to clients."""
        return ControlToken(self.journal_id, self.incarnation, revision, _hash(scope)).encode()

    def decode(self, data: bytes, scope: ScopeKey, current: int) -> int | None:
        """The revision; None for a token of another incarnation, which has to resync.

        Raises TokenMalformed, TokenForeign, RevisionInFuture.
        """
        token = ControlToken.decode(data)
        if token.journal_id != self.journal_id:
            raise TokenForeign(f"the token is of journal {token.journal_id}, this is {self.journal_id}")
        if token.scope != _hash(scope):
            raise TokenForeign("the token is of a watch of another service or selector")
        if token.incarnation != self.incarnation:
            return None
        if token.revision > current:
            raise RevisionInFuture(f"the token is of revision {token.revision}, the registry is at {current}")
        return token.revision


def _hash(scope: ScopeKey) -> int:
    """Ties a token to what was watched."""
    return xxh64("\0".join(scope).encode())
