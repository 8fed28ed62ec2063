"""The tokens that exist: a fold of token.created and token.revoked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2
from trunkline.core.records import Change, Record

from .principal import Principal, Role, Via

TOKEN_CREATED = "token.created"
TOKEN_REVOKED = "token.revoked"
PIECE_TOKENS = 500

_ROLES = {int(role): role for role in Role}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token. The secret is not."""

    id: str
    principal: Principal
    description: str
    created_at_ns: int
    expires_at_ns: int
    """0: never."""
    secret_hash: bytes
    """SHA-256."""

    @property
    def key(self) -> str:
        """What names it in the control stream."""
        return token_key(self.id)


def token_key(token_id: str) -> str:
    """What names a token in the control stream."""
    return f"token/{token_id}"


def token_from(created: control_pb2.TokenCreated) -> Token:
    """The token of a record. A role that only newer programs know allows nothing."""
    told = created.token
    principal = Principal(
        name=token_key(told.id),
        role=_ROLES.get(told.role),
        namespaces=frozenset(told.namespaces),
        topic_filters=tuple(told.topic_filters),
        via=Via.TOKEN,
    )
    return Token(
        id=told.id,
        principal=principal,
        description=told.description,
        created_at_ns=convert.time_ns_from(told.created_at),
        expires_at_ns=convert.time_ns_from(told.expires_at) if told.HasField("expires_at") else 0,
        secret_hash=created.secret_hash,
    )


def token_to(token: Token) -> admin_pb2.Token:
    """What may be told of a token."""
    principal = token.principal
    return admin_pb2.Token(
        id=token.id,
        role=admin_pb2.Role.ValueType(principal.role or 0),
        namespaces=sorted(principal.namespaces),
        topic_filters=principal.topic_filters,
        description=token.description,
        created_at=convert.time_ns_to(token.created_at_ns),
        expires_at=convert.time_ns_to(token.expires_at_ns) if token.expires_at_ns else None,
    )


class TokensFold:
    """Tokens by key. See trunkline.server.journal.control.fold.Fold for the contract."""

    name = "tokens"
    version = 1
    topics: Sequence[str] = ("token",)

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, key: str) -> Token | None:
        """The token of "token/<id>"."""
        return self._tokens.get(key)

    def tokens(self) -> list[Token]:
        """Every token, by id."""
        return sorted(self._tokens.values(), key=lambda token: token.id)

    def reduce(self, entity: Token | None, change: Change, *, revision: int, time_ns: int) -> Token | None:
        """What a change makes of a token."""
        return _reduced(entity, change.topic, change.body)

    def apply(self, record: Record) -> None:
        """Take in a durable record."""
        token = _reduced(self._tokens.get(record.key), record.topic, record.body)
        if token is None:
            self._tokens.pop(record.key, None)
        else:
            self._tokens[record.key] = token

    def dump(self) -> Iterator[bytes]:
        """Pieces of TokensPiece, by id."""
        return _pieces(self.tokens())

    def load(self, version: int, pieces: Iterable[bytes]) -> None:
        """Become what `dump` encoded."""
        if version != self.version:
            raise ValueError(f"tokens of snapshot version {version}, this program reads {self.version}")
        loaded = [token_from(c) for piece in pieces for c in control_pb2.TokensPiece.FromString(piece).tokens]
        self._tokens = {token.key: token for token in loaded}


def _reduced(token: Token | None, topic: str, body: bytes) -> Token | None:
    if topic == TOKEN_CREATED:
        return token_from(control_pb2.TokenCreated.FromString(body))
    return None if topic == TOKEN_REVOKED else token


def _pieces(tokens: Iterable[Token]) -> Iterator[bytes]:
    remaining = iter(tokens)
    while some := list(islice(remaining, PIECE_TOKENS)):
        created = [control_pb2.TokenCreated(token=token_to(t), secret_hash=t.secret_hash) for t in some]
        yield control_pb2.TokensPiece(tokens=created).SerializeToString(deterministic=True)
