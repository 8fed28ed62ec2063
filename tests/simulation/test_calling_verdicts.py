"""The judges of callers see what they are there for: each is shown a promise that is kept, and one that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from simulation.calling import host_verdicts, split_verdicts, verdicts
from simulation.calling.log import Attempted, Ejected, Kept, Refused, Told
from simulation.calling.splits import Shares, Sides
from simulation.calling.timeline import S, Timeline, Work

from trunkline.core.policy import BreakerMode, CircuitBreaker, OutlierDetection, StatusCode

POLICY = OutlierDetection(
    base_ejection_time_ns=10 * S, interval_ns=5 * S, max_ejection_time_ns=20 * S, max_ejection_percent=50
)


def count(broken: Iterator[str]) -> int:
    return len(list(broken))


def sent(at_s: float = 1.0, backend: int = 0, before: int = 0, **seen: Any) -> Attempted:
    usual = {
        "again": False, "was_ejected": False, "was_out": False, "part": 4, "others_left": 2, "untried": 2, "willing": 1,
        "reachable": 3, "stage": 0, "sides": (), "key": "", "first_side": None, "left_there": 0,
    }  # fmt: skip
    return Attempted(int(at_s * S), backend, before, **{**usual, **seen})


def ejected(*events: tuple[float, int, bool], hosts: int = 4) -> list[Ejected]:
    return [Ejected(int(at_s * S), backend, out, hosts) for at_s, backend, out in events]


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
    return count(verdicts.broke_attempts(list(made), max_attempts=3, panic_percent=50, guarded=guarded))


def test_attempts() -> None:
    assert attempts(sent(), sent(before=2)) == 0
    assert attempts(sent(before=3)) == 1
    assert attempts(sent(was_ejected=True, others_left=2)) == 1
    assert attempts(sent(was_ejected=True, others_left=1), sent(was_ejected=True, others_left=0)) == 0  # a panic
    assert attempts(sent(was_ejected=True, others_left=2, willing=0)) == 0  # their breakers refuse
    assert attempts(sent(before=1, again=True, untried=1)) == 1
    assert attempts(sent(before=2, again=True, untried=0)) == 0
    assert attempts(sent(before=1, again=True, untried=1), guarded=True) == 0
    assert attempts(sent(was_out=True)) == 1
    assert attempts(sent(was_out=True, reachable=0)) == 0


def test_the_floor() -> None:
    def broken(*events: tuple[float, int, bool], **fields: Any) -> int:
        policy = OutlierDetection(**{"max_ejection_percent": 50, **fields})
        return count(verdicts.broke_floor(ejected(*events), policy))

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
    gone = [Ejected(S, 0, True, 4), Ejected(30 * S, 0, False, 3, gone=True)]
    assert count(verdicts.broke_recovery(gone, POLICY, lambda *_: None, 100 * S)) == 0
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
    made = [sent(9, 0)] * 30 + [sent(9, 1)] * 30
    good, bad = [(9 * S, StatusCode.OK)], [(9 * S, StatusCode.INTERNAL)]

    def broken(ended: list[tuple[int, StatusCode]], made: list[Attempted], both: tuple[int, ...] = (0, 1)) -> int:
        return count(verdicts.broke_all_is_well(ended, made, {0: both, 1: both}, 5 * S))

    assert broken([*good, (S, StatusCode.INTERNAL)], made) == 0
    assert broken(bad, made) == 1
    assert broken(good, made[:40], (1,)) == 0
    assert broken(good, [*made[:30], *made[:30]]) == 1
    assert broken(good, made[:30]) == 0  # too few to say


def test_open_breakers_let_few_through() -> None:
    policy = CircuitBreaker(wait_duration_in_open_state_ns=5 * S, permitted_number_of_calls_in_half_open_state=2)

    shed = replace(policy, mode=BreakerMode.GRADUAL)

    def broken(through: int, stopped: int, policy: CircuitBreaker, **others: Any) -> int:
        made, refused = [sent(3)] * through, [Refused(3 * S, "circuit_breaker", 2, 2)] * stopped
        found = verdicts.broke_open_lets_few_through(made, refused, policy, begin_ns=0, end_ns=10 * S, **others)
        return count(found)

    assert broken(8, 92, policy) == 0
    assert broken(9, 91, policy) == 1
    assert broken(24, 76, policy, of_endpoints=policy, endpoints=3) == 0
    assert broken(25, 75, policy, of_endpoints=policy, endpoints=3) == 1
    assert broken(60, 40, shed) == 0
    assert broken(61, 39, shed) == 1
    assert broken(60, 40, policy, of_endpoints=shed, endpoints=1) == 0
    assert broken(59, 0, policy) == 0  # too few to say


def test_who_is_gone_gets_no_calls() -> None:
    told = [Told(0, frozenset({0, 1}), 0, 0), Told(5 * S, frozenset({1, 2}), 0, 0)]
    assert count(host_verdicts.broke_sent_to_those_there([sent(4, 0), sent(5, 2)], told)) == 0
    assert count(host_verdicts.broke_sent_to_those_there([sent(5, 0), sent(4, 2)], told)) == 2


def test_newcomers_are_fresh() -> None:
    assert count(host_verdicts.broke_newcomers_are_fresh([Told(0, frozenset({0, 1}), 1, 0)])) == 0
    assert count(host_verdicts.broke_newcomers_are_fresh([Told(0, frozenset({0, 1}), 2, 1)])) == 2


def test_memory_is_bounded() -> None:
    def broken(*, guarded: bool = True, **fields: int) -> int:
        usual = {
            "slots": 5, "breakers": 3, "detected": 3, "backends": 3, "leaving": 1, "needed": 5, "in_flight": 2,
        }  # fmt: skip
        kept = Kept(0, **{**usual, **fields})
        last = kept._replace(breakers=3 if guarded else 0, slots=5, detected=3, leaving=0, in_flight=0)
        return count(host_verdicts.broke_bounded([kept, last], guarded=guarded, detects=True))

    assert broken() + broken(breakers=4) + broken(guarded=False, breakers=0) == 0
    assert broken(slots=6) == 1
    assert broken(breakers=5) == broken(breakers=2) == broken(guarded=False, breakers=1) == 1
    assert broken(detected=4) == 1
    for last in (Kept(0, 5, 3, 3, 3, 0, 5, 1), Kept(0, 5, 3, 3, 3, 1, 5, 0)):
        assert count(host_verdicts.broke_bounded([last], guarded=True, detects=True)) == 1


SIDE_OF = {0: 0, 1: 1, 2: 2}
SPLITS = Shares((30, 10), False, True), Shares((30, 50), False, True)


def stuck(key: str, backend: int, *, stage: int = 0, sides: Sides = (0, 1)) -> Attempted:
    return sent(1, backend, key=key, stage=stage, sides=sides)


def test_calls_go_to_sides_in_use() -> None:
    assert count(split_verdicts.broke_sides_in_use([sent(1, 0, sides=(0, 1)), sent(1, 2)], SIDE_OF)) == 0
    assert count(split_verdicts.broke_sides_in_use([sent(1, 2, sides=(0, 1)), sent(1, 0, sides=(1,))], SIDE_OF)) == 2


def test_attempts_stay_on_the_side_of_their_call() -> None:
    def broken(backend: int, **seen: Any) -> int:
        made = [sent(1, backend, 1, sides=(0, 1), **{"first_side": 0, "left_there": 1, **seen})]
        return count(split_verdicts.broke_staying(made, SIDE_OF))

    assert broken(1) == 1
    assert broken(0) == broken(1, left_there=0) == broken(1, first_side=None) == broken(1, first_side=2) == 0


def test_keys_stay_on_their_side() -> None:
    def broken(*made: Attempted) -> int:
        return count(split_verdicts.broke_sticky(split_verdicts.homes_of(made, SIDE_OF)))

    assert broken(stuck("a", 0), stuck("a", 0), stuck("b", 1), stuck("a", 1, sides=(1,)), stuck("a", 1, stage=1)) == 0
    assert broken(stuck("a", 0), stuck("a", 1)) == 1
    assert broken(stuck("a", 0), stuck("a", 1)._replace(first_side=0)) == 0


def test_keys_move_only_where_they_must() -> None:
    def broken(*made: Attempted) -> int:
        return count(split_verdicts.broke_movement(split_verdicts.homes_of(made, SIDE_OF), SPLITS))

    assert broken(stuck("a", 0), stuck("a", 1, sides=(1,))) == 0
    assert broken(stuck("a", 0, sides=(0, 1, 2)), stuck("a", 1, sides=(0, 1))) == 1
    assert broken(stuck("a", 0), stuck("a", 1, stage=1)) == 0
    assert broken(stuck("a", 1), stuck("a", 0, stage=1)) == 1
    assert broken(stuck("a", 0, stage=1), stuck("a", 1)) == 1  # the same, seen the other way round


def test_shares() -> None:
    def broken(first: int, second: int, *, keys: bool = False) -> int:
        backends = [0] * first + [1] * second
        made = [sent(1, one, sides=(0, 1), key=f"{at}" if keys else "") for at, one in enumerate(backends)]
        return count(split_verdicts.broke_shares(made, SIDE_OF, SPLITS))

    for keys in (False, True):
        assert broken(750, 250, keys=keys) + broken(650, 350, keys=keys) == 0
        assert broken(620, 380, keys=keys) == 2
    assert broken(0, 10) == 0  # too few to say


def test_sides_in_use() -> None:
    split = Shares((30, 0, 10), by_label=True, sticky=False)
    assert split.in_use({0, 1, 2}, {0, 1, 2}) == (0, 2)
    assert split.in_use({0, 1, 2}, {1}) == (1,)
    assert split.in_use({0, 1}, ()) == (0,)
    assert Shares((1, 1), by_label=True, sticky=False).in_use({0, 2}, {2}) == ()
    assert [split.part(side, (0, 2)) for side in (0, 2)] == [0.75, 0.25]


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
