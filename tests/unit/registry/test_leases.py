"""When leases run out."""

from __future__ import annotations

from trunkline.core.clock import Rng
from trunkline.core.leases import JITTER_MS_MAX, LeaseTable

S = 1_000_000_000
MS = 1_000_000


def table() -> LeaseTable:
    return LeaseTable(Rng(1))


def silent(leases: LeaseTable, now_ns: int) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _ in leases.count_silent(counts, now_ns, percent=60):
        pass
    return counts


def test_a_lease_lives_its_ttl_and_a_jitter_under_a_second() -> None:
    leases = table()
    for lease_id in range(1_000):
        leases.grant(lease_id, ttl_ms=10_000, now_ns=5 * S)
    assert leases.due(15 * S) == []
    deadlines = [leases.deadline_ns(lease_id) or 0 for lease_id in range(1_000)]
    assert min(deadlines) > 15 * S
    assert max(deadlines) <= 15 * S + JITTER_MS_MAX * MS < 16 * S
    assert len(set(deadlines)) > 990, "leases granted together do not run out together"
    assert sorted(leases.due(16 * S)) == list(range(1_000))


def test_a_deadline_is_exact() -> None:
    leases = table()
    leases.grant(1, ttl_ms=1_000, now_ns=0)
    deadline = leases.deadline_ns(1)
    assert deadline is not None
    assert leases.due(deadline - 1) == []
    assert leases.due(deadline) == [1]


def test_a_due_lease_stays_due_until_renewed_or_dropped() -> None:
    leases = table()
    leases.grant(1, ttl_ms=1_000, now_ns=0)
    leases.grant(2, ttl_ms=1_000, now_ns=0)
    assert leases.due(2 * S) == leases.due(3 * S)
    leases.renew([1], 3 * S)
    leases.drop(2)
    assert leases.due(3 * S) == []
    assert leases.due(10 * S) == [1]


def test_each_due_lease_is_named_once() -> None:
    leases = table()
    for lease_id in range(200):
        leases.grant(lease_id, ttl_ms=1_000, now_ns=0)
    for at in range(1_000, 2_000, 7):
        due = leases.due(at * MS)
        assert len(due) == len(set(due)), at


def test_renewing_says_which_are_not_there() -> None:
    leases = table()
    leases.grant(1, ttl_ms=1_000, now_ns=0)
    assert leases.renew([1, 9, 1], S // 2) == (2, [9], 1_000)
    assert leases.due(S + JITTER_MS_MAX * MS) == []
    assert leases.due(2 * S) == [1]


def test_a_lease_granted_anew_is_timed_once() -> None:
    leases = table()
    leases.grant(1, ttl_ms=300_000, now_ns=0)
    leases.grant(1, ttl_ms=1_000, now_ns=0)
    assert leases.due(2 * S) == [1]
    leases.drop(1)
    leases.grant(1, ttl_ms=1_000, now_ns=2 * S)
    leases.grant(1, ttl_ms=300_000, now_ns=2 * S)
    assert leases.due(100 * S) == []
    assert leases.due(303 * S) == [1]


def test_a_stall_moves_every_deadline_by_its_length() -> None:
    leases = table()
    leases.grant(1, ttl_ms=10_000, now_ns=0)
    before = leases.deadline_ns(1) or 0
    leases.shift(60 * S)
    assert leases.deadline_ns(1) == before + 60 * S
    assert leases.due(before + 60 * S - 1) == []
    assert leases.due(before + 60 * S) == [1]
    leases.renew([1], 80 * S)
    assert (leases.deadline_ns(1) or 0) - 80 * S == before, "a renewal after the stall gives its usual time"


def test_silence_is_counted_by_group() -> None:
    leases = table()
    for lease_id in range(4):
        leases.grant(lease_id, ttl_ms=10_000, now_ns=0, group="ab"[lease_id % 2])
    leases.renew([0], 3 * S)
    assert silent(leases, 6 * S - 1) == {}
    assert silent(leases, 6 * S) == {"a": 1, "b": 2}
    leases.shift(S)
    assert silent(leases, 7 * S - 1) == {}


def test_those_that_run_out_together_are_told_a_part_at_a_time() -> None:
    leases = table()
    for lease in range(1_000):
        leases.grant(lease, ttl_ms=1_000, now_ns=0)
    told: list[int] = []
    while due := leases.due(10 * S, limit=64):
        assert len(due) <= 64
        assert not set(due) & set(told)
        told += due
        for lease in due:
            leases.drop(lease)
    assert sorted(told) == list(range(1_000))


def test_what_is_not_told_for_want_of_room_stays_due() -> None:
    leases = table()
    for lease in range(100):
        leases.grant(lease, ttl_ms=1_000, now_ns=0)
    first = leases.due(10 * S, limit=10)
    assert len(first) == 10
    leases.renew(range(50), 10 * S)
    assert sorted(leases.due(10 * S)) == list(range(50, 100))
    assert sorted(leases.due(20 * S)) == list(range(100))


def test_what_is_kept_for_longer_than_anybody_lives_is_no_fault() -> None:
    leases = table()
    for lease, ttl_ms in ((1, 2**32 + 5), (2, 2**62)):
        leases.grant(lease, ttl_ms=ttl_ms, now_ns=0)
    assert leases.due(2**32 * MS) == []
    assert leases.due((2**32 + 5) * MS + S) == [1]
