"""Making, listing and revoking tokens."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trunkline.api import convert
from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2
from trunkline.core.clock import Clock
from trunkline.core.errors import LimitExceeded, TokenNotFound
from trunkline.core.records import Change

from ..journal.control.fold import View
from ..journal.control.requests import request_id_by
from ..journal.control.sequencer import Origin, Sequencer, Written
from .authenticate import TOKEN_PREFIX, hash_of
from .principal import EVERY_NAMESPACE, EVERY_TOPIC, Principal, Resource, Role, Verb, authorize
from .tokens_fold import TOKEN_CREATED, TOKEN_REVOKED, Token, TokensFold, token_key

TOKENS_MAX = 10_000
SECRET_BYTES = 32
ID_BYTES = 10

Entropy = Callable[[int], bytes]
"""So many random bytes; os.urandom in a server."""


class Secret(NamedTuple):
    """A token as its owner gets it, and what is kept of it."""

    token: str
    hash: bytes


class Created(NamedTuple):
    """A token that was made. `secret` is shown once."""

    token: Token
    secret: str
    revision: int


def new_secret(token_id: str, entropy: Entropy) -> Secret:
    """tl_<id>_<256 random bits>."""
    secret = base64.urlsafe_b64encode(entropy(SECRET_BYTES)).rstrip(b"=").decode()
    return Secret(f"{TOKEN_PREFIX}_{token_id}_{secret}", hash_of(secret))


def new_id(maker: str, request_id: str, entropy: Entropy) -> str:
    """An id of lower-case letters and digits; the same for the same request of the same maker."""
    named = hashlib.sha256(f"{maker}\n{request_id}".encode()).digest()[:ID_BYTES]
    seed = named if request_id else entropy(ID_BYTES)
    return base64.b32encode(seed).rstrip(b"=").decode().lower()


class Tokens:
    """The tokens of this installation. Who may do what to them is decided here, by what they would allow."""

    def __init__(self, sequencer: Sequencer, fold: TokensFold, clock: Clock, entropy: Entropy) -> None:
        self._sequencer = sequencer
        self._fold = fold
        self._clock = clock
        self._entropy = entropy

    async def create(
        self, principal: Principal, request: admin_pb2.CreateTokenRequest, *, deadline_ns: int | None = None
    ) -> Created:
        """Make a token that allows no more than its maker may. PermissionDenied, LimitExceeded.

        A repeated request id makes the same token with a new secret: the first one's answer may have been lost, and
        what is stored could not repeat it. The last answer counts.
        """
        _authorize_each(principal, request.namespaces, request.topic_filters)
        token_id = new_id(principal.name, request.request_id, self._entropy)
        secret = new_secret(token_id, self._entropy)
        now_ns = self._clock.time_ns()
        valid_ms = convert.ms_from(request, "valid_for", 0)
        body = control_pb2.TokenCreated(secret_hash=secret.hash)
        body.token.CopyFrom(
            admin_pb2.Token(
                id=token_id,
                role=request.role,
                namespaces=request.namespaces,
                topic_filters=request.topic_filters,
                description=request.description,
                created_at=convert.time_ns_to(now_ns),
                expires_at=convert.time_ns_to(now_ns + valid_ms * 1_000_000) if valid_ms else None,
            )
        )
        change = Change(topic=TOKEN_CREATED, key=token_key(token_id), body=body.SerializeToString())

        def decide(view: View) -> Sequence[Change]:
            if view.get(change.key) is None and len(self._fold) >= TOKENS_MAX:
                raise LimitExceeded("tokens_max", TOKENS_MAX)
            return [change]

        written = await self._sequencer.write(decide, Origin(author=principal.name), deadline_ns=deadline_ns)
        token = self._fold.get(change.key)
        assert token is not None
        return Created(token, secret.token, written.revision)

    def visible_to(self, principal: Principal) -> list[Token]:
        """Tokens that allow no more than the principal may, by id."""
        return [token for token in self._fold.tokens() if _is_within(principal, token.principal)]

    async def revoke(
        self,
        principal: Principal,
        request: admin_pb2.RevokeTokenRequest,
        *,
        deadline_ns: int | None = None,
    ) -> Written:
        """End a token: no call is let in by it from then on. TokenNotFound, PermissionDenied."""
        change = Change(
            topic=TOKEN_REVOKED,
            key=token_key(request.id),
            body=control_pb2.TokenRevoked().SerializeToString(),
        )

        def decide(view: View) -> Sequence[Change]:
            token: Token | None = view.get(change.key)
            if token is None:
                raise TokenNotFound(f"no token has the id {request.id!r}", token=request.id)
            _authorize_each(principal, sorted(token.principal.namespaces), token.principal.topic_filters)
            return [change]

        origin = Origin(author=principal.name, request_id=request_id_by(principal.name, request))
        return await self._sequencer.write(decide, origin, deadline_ns=deadline_ns)


def _authorize_each(principal: Principal, namespaces: Sequence[str], topic_filters: Sequence[str]) -> None:
    """What a token would allow, its maker must be allowed to administer."""
    for namespace in namespaces or (EVERY_NAMESPACE,):
        authorize(principal, Verb.ADMINISTER, Resource(namespace, topic_filters or EVERY_TOPIC))


def _is_within(principal: Principal, other: Principal) -> bool:
    namespaces = other.namespaces or {EVERY_NAMESPACE}
    return principal.role == Role.ADMIN and all(
        principal.sees(namespace) and principal.may_touch(topic)
        for namespace in namespaces
        for topic in other.topic_filters or EVERY_TOPIC
    )
