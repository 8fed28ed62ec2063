"""The judges of callers see what they are there for: each is shown a promise that is kept, and one that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulation.calling import verdicts
from simulation.calling.log import Attempted, Ejected, Refused
from simulation.calling.timeline import S, Timeline, Work

from trunkline.core.policy import CircuitBreaker, OutlierDetection, StatusCode

POLICY = OutlierDetection(
    base_ejection_time_ns=10 * S, interval_ns=5 * S, max_ejection_time_ns=20 * S, max_ejection_percent=50
)


def count(broken: Iterator[str]) -> int:
    return len(list(broken))


def sent(at_s: float = 1.0, backend: int = 0, before: int = 0, **seen: Any) -> Attempted:
    return Attempted(
        int(at_s * S), backend, before,
        **{"again": False, "was_ejected": False, "ejected": 0, "others_left": 2, "out": 0, "willing": 1, **seen},
    )  # fmt: skip


def ejected(*events: tuple[float, int, bool]) -> list[Ejected]:
    return [Ejected(int(at_s * S), backend, out) for at_s, backend, out in events]


def test_retry_storms() -> None:
    calls = [at * S // 10 for at in range(1_000)]  # ten a second
    kept = [*calls, *range(0, 100 * S, S // 5)]  # and five retries a second
    assert count(verdicts.broke_no_retry_storm(calls, kept)) == 0
    assert count(verdicts.broke_no_retry_storm(calls, [*kept, *([50 * S] * 2)])) == 1
    assert count(verdicts.broke_no_retry_storm([], [200 * S] * 30)) == 0
    assert count(verdicts.broke_no_retry_storm([], [200 * S] * 31)) == 1


def test_empty_picks() -> None:
    kept = [
        Refused(0, "no_instance", 0, 0),
        Refused(0, "endpoint_circuit_breaker", 3, 0),
        Refused(0, "circuit_breaker", 3, 3),
    ]
    assert count(verdicts.broke_no_empty_pick(kept)) == 0
    broken = [Refused(0, "no_instance", 1, 0), Refused(0, "endpoint_circuit_breaker", 3, 1)]
    assert count(verdicts.broke_no_empty_pick(broken)) == 2


def attempts(*made: Attempted, guarded: bool = False) -> int:
    return count(verdicts.broke_attempts(list(made), max_attempts=3, panic_percent=50, backends=4, guarded=guarded))


def test_attempts() -> None:
    assert attempts(sent(), sent(before=2)) == 0
    assert attempts(sent(before=3)) == 1
    assert attempts(sent(was_ejected=True, others_left=2)) == 1
    assert attempts(sent(was_ejected=True, others_left=1), sent(was_ejected=True, others_left=0)) == 0  # a panic
    assert attempts(sent(was_ejected=True, others_left=2, willing=0)) == 0  # their breakers refuse
    assert attempts(sent(before=1, again=True, others_left=2)) == 1
    assert attempts(sent(before=2, again=True, others_left=2)) == 0
    assert attempts(sent(before=1, again=True, others_left=2), guarded=True) == 0


def test_the_floor() -> None:
    def broken(*events: tuple[float, int, bool], **fields: Any) -> int:
        policy = OutlierDetection(**{"max_ejection_percent": 50, **fields})
        return count(verdicts.broke_floor(ejected(*events), 4, policy))

    assert broken((1, 0, True), (2, 1, True), (3, 0, False), (3, 2, True)) == 0
    assert broken((1, 0, True), (2, 1, True), (3, 2, True)) == 1
    assert broken((1, 0, True), max_ejection_percent=10) == 1
    assert broken((1, 0, True), max_ejection_percent=10, always_eject_one_host=True) == 0
    assert broken(*((1, at, True) for at in range(4)), max_ejection_percent=100) == 1


def test_recovery() -> None:
    def broken(*events: tuple[float, int, bool], healed_s: float | None = None) -> int:
        def healed(backend: int, at_ns: int) -> int | None:
            return None if healed_s is None else int(healed_s * S)

        return count(verdicts.broke_recovery(ejected(*events), POLICY, healed, 100 * S))

    assert broken((1, 0, True), (16, 0, False)) == 0
    assert broken((1, 0, True), (16.1, 0, False)) == 1
    assert broken((1, 0, True)) == 1  # never
    assert broken((90, 0, True)) == 0  # not yet
    # The second time is longer, and the third no longer than the longest.
    again = (1, 0, True), (16, 0, False), (20, 0, True), (45, 0, False)
    assert broken(*again) == 0
    assert broken(*again, (50, 0, True), (75.1, 0, False)) == 1
    assert broken((1, 0, True), (16.1, 0, False), healed_s=1.0) == 2
    assert broken((1, 0, True), (16, 0, False), healed_s=1.0) == 0


def test_well_ones_are_not_ejected() -> None:
    def in_trouble(backend: int, from_ns: int, to_ns: int) -> bool:
        return backend == 1 and from_ns < 5 * S

    assert count(verdicts.broke_no_well_one_ejected(ejected((9, 1, True), (99, 1, False)), in_trouble, 5 * S)) == 0
    assert count(verdicts.broke_no_well_one_ejected(ejected((9, 0, True)), in_trouble, 5 * S)) == 1
    assert count(verdicts.broke_no_well_one_ejected(ejected((12, 1, True)), in_trouble, 5 * S)) == 1


def test_all_is_well_in_the_end() -> None:
    made = [sent(9, 0), sent(9, 1)]
    good, bad = [(9 * S, StatusCode.OK)], [(9 * S, StatusCode.INTERNAL)]
    assert count(verdicts.broke_all_is_well([*good, (S, StatusCode.INTERNAL)], made, 2, 5 * S)) == 0
    assert count(verdicts.broke_all_is_well(bad, made, 2, 5 * S)) == 1
    assert count(verdicts.broke_all_is_well(good, made[:1], 2, 5 * S)) == 1


def test_open_breakers_let_few_through() -> None:
    policy = CircuitBreaker(wait_duration_in_open_state_ns=5 * S, permitted_number_of_calls_in_half_open_state=2)

    def broken(through: int, stopped: int, *, fast: bool) -> int:
        made, refused = [sent(3)] * through, [Refused(3 * S, "circuit_breaker", 2, 2)] * stopped
        return count(verdicts.broke_open_lets_few_through(made, refused, policy, fast=fast, begin_ns=0, end_ns=10 * S))

    assert broken(8, 92, fast=True) == 0
    assert broken(9, 91, fast=True) == 1
    assert broken(60, 40, fast=False) == 0
    assert broken(61, 39, fast=False) == 1
    assert broken(59, 0, fast=True) == 0  # too few to say


def test_spans() -> None:
    assert verdicts.spans([(5, 6), (1, 3), (2, 4)]) == [(1, 4), (5, 6)]


def test_a_timeline_goes_by_time() -> None:
    timeline, seen = Timeline(), []

    def work(name: str, wait_ns: int) -> Work:
        for _ in range(3):
            seen.append((timeline.now_ns, name))
            yield wait_ns

    timeline.spawn(work("a", 2))
    timeline.spawn(work("b", 3), after_ns=1)
    timeline.run_until(5)
    assert seen == [(0, "a"), (1, "b"), (2, "a"), (4, "b"), (4, "a")]
    assert timeline.now_ns == 5
