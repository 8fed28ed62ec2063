"""The lease table against a dictionary of deadlines, and against the same written plainly."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reference.leases import LeaseTable as PlainTable
from trunkline.api.v1 import registry_pb2
from trunkline.core.clock import Rng
from trunkline.core.leases import LeaseTable, read_lease_ids

MS = 1_000_000

steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(0, 9), st.integers(1, 30)),
        st.tuples(st.just("renew"), st.lists(st.integers(0, 9), max_size=5), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("pass"), st.integers(0, 40_000), st.just(0)),
        st.tuples(st.just("stall"), st.integers(0, 40_000), st.just(0)),
        st.tuples(st.just("due"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=steps, seed=st.integers(0, 2**32))
def test_the_table_agrees_with_plain_deadlines(steps: list[tuple[str, object, int]], seed: int) -> None:
    table, now_ns = LeaseTable(Rng(seed)), 0
    spans: dict[int, int] = {}
    deadlines: dict[int, int] = {}
    for what, about, ttl_s in [*steps, ("due", 0, 0)]:
        match what, about:
            case "grant", int(lease):
                table.grant(lease, ttl_ms=ttl_s * 1_000, now_ns=now_ns)
                deadline_ns = table.deadline_ns(lease)
                assert deadline_ns is not None
                spans[lease], deadlines[lease] = deadline_ns - now_ns, deadline_ns
                assert 0 < spans[lease] - ttl_s * 1_000 * MS <= 500 * MS
            case "renew", list(leases):
                renewed, missing, _ = table.renew(leases, now_ns)
                assert missing == [lease for lease in leases if lease not in deadlines]
                assert renewed == len(leases) - len(missing)
                deadlines.update({lease: now_ns + spans[lease] for lease in leases if lease in deadlines})
            case "drop", int(lease):
                table.drop(lease)
                deadlines.pop(lease, None)
            case "pass", int(ms):
                now_ns += ms * MS
            case "stall", int(ms):
                now_ns += ms * MS
                table.shift(ms * MS)
                deadlines = {lease: deadline + ms * MS for lease, deadline in deadlines.items()}
            case "due", _:
                due = table.due(now_ns)
                assert len(due) == len(set(due))
                assert set(due) == {lease for lease, deadline in deadlines.items() if deadline <= now_ns}
        assert len(table) == len(deadlines)
        assert {lease: table.deadline_ns(lease) for lease in deadlines} == deadlines


ids = st.integers(0, 2**64 - 1) | st.integers(0, 200)
many_steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("grant"), st.lists(st.tuples(ids, st.integers(1, 30_000), st.sampled_from("ab")), max_size=40)
        ),
        st.tuples(st.just("renew"), st.lists(ids, max_size=20)),
        st.tuples(st.just("drop"), st.lists(ids, max_size=20)),
        st.tuples(st.just("pass"), st.integers(0, 20_000)),
        st.tuples(st.just("stall"), st.integers(0, 20_000)),
        st.tuples(st.just("due"), st.integers(0, 50)),
        st.tuples(st.just("silent"), st.integers(0, 100)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=many_steps, seed=st.integers(0, 2**32))
def test_the_table_does_what_it_does_written_plainly(steps: list[tuple[str, Any]], seed: int) -> None:
    table, plain, now_ns = LeaseTable(Rng(seed)), PlainTable(Rng(seed)), 0
    for what, about in steps:
        match what:
            case "grant":
                table.grant_many(about, now_ns=now_ns)
                plain.grant_many(about, now_ns=now_ns)
            case "renew":
                assert table.renew(about, now_ns) == plain.renew(about, now_ns)
            case "drop":
                for lease in about:
                    table.drop(lease)
                    plain.drop(lease)
                    assert lease not in table
            case "pass":
                now_ns += about * MS
            case "stall":
                now_ns += about * MS
                table.shift(about * MS)
                plain.shift(about * MS)
            case "due":
                assert table.due(now_ns, limit=about) == plain.due(now_ns, limit=about)
            case "silent":
                assert silent(table, now_ns, about) == silent(plain, now_ns, about)
        assert len(table) == len(plain)
        for lease in plain:
            assert lease in table
            assert table.deadline_ns(lease) == plain.deadline_ns(lease)
            assert table.silent_ns(lease, now_ns) == plain.silent_ns(lease, now_ns)


def silent(leases: LeaseTable | PlainTable, now_ns: int, percent: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in leases.count_silent(counts, now_ns, percent=percent):
        pass
    return counts


lease_ids = st.lists(st.integers(0, 2**64 - 1), max_size=5)
more_bytes = st.sampled_from(
    [b"", b"\x10\x01", b"\x0a", b"\x0a\x09", b"\x09\x01\x02\x03\x04\x05\x06\x07\x08", b"\x0a\x00"]
)


@given(lease_ids, more_bytes, st.integers(0, 60))
def test_lease_ids_are_read_as_protobuf_reads_them_or_left_to_it(ids: list[int], more: bytes, cut: int) -> None:
    data = registry_pb2.KeepAliveRequest(lease_ids=ids).SerializeToString()
    assert read_lease_ids(data) == ids
    found = read_lease_ids((data + more)[:cut])
    if found is not None:
        assert found == list(registry_pb2.KeepAliveRequest.FromString((data + more)[:cut]).lease_ids)


def test_no_more_ids_are_taken_than_the_rules_allow() -> None:
    data = registry_pb2.KeepAliveRequest(lease_ids=range(10_000)).SerializeToString()
    assert read_lease_ids(data) == list(range(10_000))
    assert read_lease_ids(registry_pb2.KeepAliveRequest(lease_ids=range(10_001)).SerializeToString()) is None
