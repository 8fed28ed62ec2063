"""Values of the journal and of the registry: equal when their fields are, and not to be changed."""

from __future__ import annotations

import pytest

from trunkline.core.model import Declared, Instance, Override, Status
from trunkline.core.records import NO_VERSION, Change, Draft, Record, Version
from trunkline.core.registered import Entry, Lease, RegisteredInstance

INSTANCE = Instance(namespace="shop", service="orders", id="o1", endpoints=(), declared=Declared.SERVING)
REGISTERED = RegisteredInstance(INSTANCE, Status.SERVING, "declared", 1, 2**64 - 1, 3)
LEASE = Lease(2**64 - 1, b"h" * 32, 10_000, 9)
SOME = [
    Version(1, 2, 3),
    Version(1, 2, 4),
    Change("a.b", "a/k", b"x"),
    Change("a.b", "a/k", b"y"),
    Draft("a.b", b"x", "a/k"),
    Draft("a.b", b"x", "a/k", version=Version(1, 2, 3)),
    Draft("a.b", b"x", "a/k").record(1, 2),
    Draft("a.b", b"x", "a/k").record(1, 3),
    REGISTERED,
    REGISTERED.replace(status=Status.DRAINING),
    LEASE,
    LEASE.at(lapsed_revision=0, lapsed_ns=5),
    LEASE.at(keeper=1),
    Entry(REGISTERED, LEASE),
    Entry(REGISTERED, LEASE, "refused"),
    Entry(REGISTERED, LEASE, None, Override(Status.DRAINING, "move")),
]


def test_they_are_equal_when_all_fields_are_and_to_nothing_else() -> None:
    for number, one in enumerate(SOME):
        for other_number, other in enumerate(SOME):
            assert (one == other) is (number == other_number), (one, other)
        assert one != (1, 2, 3)
    assert len(set(SOME)) == len(SOME)
    assert Version(1, 2, 3) == Version(1, 2, 3)
    assert hash(Version(1, 2, 3)) == hash(Version(1, 2, 3))


def test_they_show_their_fields() -> None:
    assert repr(Version(1, 2, 3)) == "Version(writer=1, epoch=2, sequence=3)"
    assert repr(Change("a", "k", b"")) == "Change(topic='a', key='k', body=b'', namespace='', schema=1)"
    record = Record(7, 8, "a.b", b"x", expects=Version(1, 2, 3))
    assert repr(record).startswith("Record(offset=7, time_ns=8, topic='a.b', body=b'x', key='', id='', ")
    assert "expects=Version(writer=1, epoch=2, sequence=3)" in repr(record)
    assert repr(LEASE).startswith("Lease(id=18446744073709551615, secret_hash=b'hhhh")
    assert "lease=Lease(" in repr(Entry(REGISTERED, LEASE))
    assert "status_reason='declared'" in repr(REGISTERED)


def test_a_change_becomes_a_draft_and_a_draft_a_record_with_all_that_they_say() -> None:
    draft = Change("a.b", "a/k", b"x", "shop", 3).draft("id", Version(1, 2, 3), Version(1, 2, 2), "me", "why", "00-1")
    assert draft == Draft(
        "a.b", b"x", "a/k", "id", "shop", 3, Version(1, 2, 3), Version(1, 2, 2), "me", "why", "00-1"
    )  # fmt: skip
    record = draft.record(5, 6)
    assert (record.offset, record.time_ns) == (5, 6)
    assert Draft(*record._fields()[2:]) == draft  # type: ignore[arg-type]
    assert record.record(9, 6).offset == 9
    assert Draft("a", b"").version is NO_VERSION


def test_a_lease_at_another_time() -> None:
    lapsed = LEASE.at(lapsed_revision=0, lapsed_ns=5)
    assert (LEASE.lapsed, LEASE.lapsed_revision, LEASE.lapsed_ns) == (False, None, 0)
    assert (lapsed.lapsed, lapsed.lapsed_revision, lapsed.lapsed_ns) == (True, 0, 5)
    assert lapsed.at(keeper=4) == Lease(LEASE.id, LEASE.secret_hash, 10_000, 4)


def test_what_cannot_be_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="a secret's hash has 32 bytes, not 3"):
        Lease(1, b"abc", 10_000, 9)
    with pytest.raises(TypeError):
        Draft(b"topic", b"body")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Change("topic", "key", "body")  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        Version(-1, 0, 0)
    with pytest.raises(AttributeError):
        LEASE.keeper = 4


def test_another_registered_instance_keeps_what_is_not_named() -> None:
    other = REGISTERED.replace(status=Status.DRAINING, status_reason="override", modified_revision=9)
    assert other == RegisteredInstance(INSTANCE, Status.DRAINING, "override", 1, 9, 3)
