"""The lease table against a dictionary of deadlines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.core.clock import Rng
from trunkline.server.registry.leases import LeaseTable

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
                renewal = table.renew(leases, now_ns)
                assert renewal.missing == [lease for lease in leases if lease not in deadlines]
                assert renewal.renewed == len(leases) - len(renewal.missing)
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
