"""Making and revoking tokens through a real control stream on the memory engine, and the fold of their records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api.journal.v1 import control_pb2
from trunkline.api.v1 import admin_pb2
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import LimitExceeded, PermissionDenied, TokenNotFound, Unauthenticated
from trunkline.core.model import Sync
from trunkline.core.records import Change, Record
from trunkline.server.journal.control.fold import Folds
from trunkline.server.journal.control.node import Control, ControlConfig
from trunkline.server.journal.memory import MemoryEngine
from trunkline.server.security import tokens as tokens_module
from trunkline.server.security.authenticate import hash_of
from trunkline.server.security.principal import NOBODY, Principal, Role, Via
from trunkline.server.security.tokens import SECRET_BYTES, Tokens
from trunkline.server.security.tokens_fold import (
    PIECE_TOKENS,
    TOKEN_CREATED,
    TOKEN_REVOKED,
    TokensFold,
    token_key,
    token_to,
)

ROOT = Principal(name="token/root", role=Role.ADMIN, via=Via.TOKEN)
SHOP = Principal(name="token/shop", role=Role.ADMIN, namespaces=frozenset({"shop"}), via=Via.TOKEN)
READER = admin_pb2.ROLE_READER


class Installation:
    """Tokens on a control stream, with bytes that are not random but all different."""

    def __init__(self) -> None:
        self.clock = ManualClock(epoch_ns=1_000_000_000_000)
        self.fold = TokensFold()
        self.control = Control(
            MemoryEngine(self.clock, Rng(1), offers=Sync.FSYNCED),
            Folds([self.fold]),
            self.clock,
            ControlConfig(),
            program_version="test",
        )
        numbers = count(1)
        self.entropy = lambda size: next(numbers).to_bytes(size)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.control.sequencer, self.fold, self.clock, self.entropy)


@contextlib.asynccontextmanager
async def installation() -> AsyncIterator[Installation]:
    made = Installation()
    await made.control.open()
    running = asyncio.create_task(made.control.run())
    await made.control.ready.wait()
    try:
        yield made
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def wanted(**fields: object) -> admin_pb2.CreateTokenRequest:
    return admin_pb2.CreateTokenRequest(**{"role": READER, **fields})  # type: ignore[arg-type]


async def test_a_token_is_made_listed_and_revoked() -> None:
    async with installation() as at:
        request = wanted(namespaces=["shop"], topic_filters=["a.>"], description="for carts")
        request.valid_for.seconds = 60
        created = await at.tokens.create(ROOT, request)
        prefix, token_id, secret = created.secret.split("_", 2)
        assert (prefix, token_id) == ("tl", created.token.id)
        assert len(secret) >= SECRET_BYTES * 8 / 6
        assert created.token.secret_hash == hash_of(secret)
        assert created.token.expires_at_ns - created.token.created_at_ns == 60_000_000_000
        principal = created.token.principal
        assert (principal.role, principal.namespaces, principal.topic_filters) == (
            Role.READER,
            frozenset({"shop"}),
            ("a.>",),
        )
        assert created.revision == at.control.sequencer.revision
        assert [token.id for token in at.tokens.visible_to(ROOT)] == [token_id]
        told = token_to(created.token)
        assert told.description == "for carts"
        assert secret not in str(told)
        written = await at.tokens.revoke(ROOT, admin_pb2.RevokeTokenRequest(id=token_id))
        assert written.records[0].author == "token/root"
        assert at.tokens.visible_to(ROOT) == []
        with pytest.raises(TokenNotFound):
            await at.tokens.revoke(ROOT, admin_pb2.RevokeTokenRequest(id=token_id))


async def test_the_secret_is_stored_nowhere() -> None:
    async with installation() as at:
        created = await at.tokens.create(ROOT, wanted())
        secret = created.secret.split("_", 2)[2].encode()
        blocks = await at.control.log.read(0, max_bytes=1_000_000)
        assert blocks
        assert not any(secret in bytes(block.payload) for block in blocks)


async def test_a_repeated_request_makes_one_token_whose_last_secret_counts() -> None:
    async with installation() as at:
        first = await at.tokens.create(ROOT, wanted(request_id="again"))
        second = await at.tokens.create(ROOT, wanted(request_id="again"))
        assert first.token.id == second.token.id
        assert first.secret != second.secret
        [kept] = at.tokens.visible_to(ROOT)
        assert kept.secret_hash == hash_of(second.secret.split("_", 2)[2])
        other = await at.tokens.create(SHOP, wanted(request_id="again", namespaces=["shop"]))
        assert other.token.id != first.token.id


async def test_a_repeated_revocation_is_answered_alike() -> None:
    async with installation() as at:
        created = await at.tokens.create(ROOT, wanted())
        request = admin_pb2.RevokeTokenRequest(id=created.token.id, request_id="r1")
        first = await at.tokens.revoke(ROOT, request)
        second = await at.tokens.revoke(ROOT, request)
        assert (first.revision, first.repeated) == (second.revision, False)
        assert second.repeated


async def test_a_request_id_that_was_used_for_another_token_revokes_all_the_same() -> None:
    async with installation() as at:
        for _ in range(2):
            created = await at.tokens.create(ROOT, wanted())
            request = admin_pb2.RevokeTokenRequest(id=created.token.id, request_id="r1")
            assert not (await at.tokens.revoke(ROOT, request)).repeated
        assert at.tokens.visible_to(ROOT) == []


@pytest.mark.parametrize(
    "fields",
    [{}, {"namespaces": ["other"]}, {"namespaces": ["shop", "other"]}],
    ids=["everywhere", "elsewhere", "here and elsewhere"],
)
async def test_nobody_makes_what_they_are_not(fields: dict[str, object]) -> None:
    async with installation() as at:
        with pytest.raises(PermissionDenied):
            await at.tokens.create(SHOP, wanted(**fields))
        await at.tokens.create(SHOP, wanted(namespaces=["shop"]))
        assert len(at.fold) == 1


async def test_topics_are_not_widened() -> None:
    limited = Principal(name="token/l", role=Role.ADMIN, topic_filters=("a.>",), via=Via.TOKEN)
    async with installation() as at:
        with pytest.raises(PermissionDenied):
            await at.tokens.create(limited, wanted())
        with pytest.raises(PermissionDenied):
            await at.tokens.create(limited, wanted(topic_filters=[">"]))
        await at.tokens.create(limited, wanted(topic_filters=["a.b"]))


async def test_tokens_beyond_ones_rights_are_neither_seen_nor_revoked() -> None:
    async with installation() as at:
        created = await at.tokens.create(ROOT, wanted(namespaces=["other"]))
        mine = await at.tokens.create(SHOP, wanted(namespaces=["shop"]))
        assert [token.id for token in at.tokens.visible_to(SHOP)] == [mine.token.id]
        with pytest.raises(PermissionDenied):
            await at.tokens.revoke(SHOP, admin_pb2.RevokeTokenRequest(id=created.token.id))
        with pytest.raises(Unauthenticated):
            await at.tokens.revoke(NOBODY, admin_pb2.RevokeTokenRequest(id=created.token.id))
        assert at.tokens.visible_to(NOBODY) == []
        assert len(at.fold) == 2


async def test_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "TOKENS_MAX", 2)
    async with installation() as at:
        kept = await at.tokens.create(ROOT, wanted())
        await at.tokens.create(ROOT, wanted(request_id="b"))
        with pytest.raises(LimitExceeded, match="tokens_max"):
            await at.tokens.create(ROOT, wanted())
        await at.tokens.create(ROOT, wanted(request_id="b"))
        await at.tokens.revoke(ROOT, admin_pb2.RevokeTokenRequest(id=kept.token.id))
        await at.tokens.create(ROOT, wanted())


# The fold.


def created_body(token_id: str, role: int, namespaces: list[str]) -> bytes:
    token = admin_pb2.Token(id=token_id, namespaces=namespaces)
    token.MergeFromString(b"\x10" + bytes([role]))
    return control_pb2.TokenCreated(token=token, secret_hash=token_id.encode()).SerializeToString()


ids = st.sampled_from(["a", "b", "c"])
changes = st.lists(
    st.builds(
        lambda token_id, role, namespaces: Change(
            topic=TOKEN_CREATED, key=token_key(token_id), body=created_body(token_id, role, namespaces)
        ),
        ids,
        st.integers(1, 3),
        st.lists(st.sampled_from(["x", "y"]), unique=True),
    )
    | st.builds(lambda token_id: Change(topic=TOKEN_REVOKED, key=token_key(token_id), body=b""), ids),
    max_size=12,
)


def folded(history: list[Change]) -> TokensFold:
    fold = TokensFold()
    for offset, change in enumerate(history):
        fold.apply(Record(offset=offset, time_ns=offset, topic=change.topic, key=change.key, body=change.body))
    return fold


@given(changes)
def test_reducing_says_what_applying_does(history: list[Change]) -> None:
    fold = TokensFold()
    for offset, change in enumerate(history):
        expected = fold.reduce(fold.get(change.key), change, revision=offset, time_ns=0)
        fold.apply(Record(offset=offset, time_ns=0, topic=change.topic, key=change.key, body=change.body))
        assert fold.get(change.key) == expected


@given(changes)
def test_a_snapshot_holds_the_fold(history: list[Change]) -> None:
    fold, restored = folded(history), TokensFold()
    pieces = list(fold.dump())
    restored.load(TokensFold.version, pieces)
    assert restored.tokens() == fold.tokens()
    assert list(restored.dump()) == pieces


def test_a_dump_is_of_the_moment_it_was_asked_for() -> None:
    history = [Change(topic=TOKEN_CREATED, key=token_key(f"t{i}"), body=created_body(f"t{i}", 1, [])) for i in range(3)]
    fold = folded(history)
    pieces = fold.dump()
    fold.apply(Record(offset=9, time_ns=9, topic=TOKEN_REVOKED, key=token_key("t1"), body=b""))
    restored = TokensFold()
    restored.load(1, pieces)
    assert len(restored) == 3


def test_a_dump_comes_in_pieces() -> None:
    count_of = PIECE_TOKENS + 1
    history = [
        Change(topic=TOKEN_CREATED, key=token_key(f"t{i}"), body=created_body(f"t{i}", 1, [])) for i in range(count_of)
    ]
    assert len(list(folded(history).dump())) == 2


def test_a_snapshot_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        TokensFold().load(2, [])


def test_a_role_of_a_newer_program_allows_nothing() -> None:
    fold = folded([Change(topic=TOKEN_CREATED, key=token_key("a"), body=created_body("a", 9, []))])
    token = fold.get(token_key("a"))
    assert token is not None
    assert token.principal.role is None
