"""What becomes of instances whose leases run out."""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.server.registry.entity import InstanceKey
from trunkline.server.registry.guard import LAST_SERVING, NO_KEEP_ALIVE, Guard, GuardConfig, Judgement, Lapse

S = 1_000_000_000
TTL_MS = 10_000
NONE: dict[str, int] = {}


@dataclass
class People:
    """A namespace of so many leases; every service has enough who serve unless it says otherwise."""

    total: int = 100
    lapsed: int = 0
    serves: dict[str, int] = field(default_factory=dict)

    def leases(self, namespace: str) -> tuple[int, int]:
        return self.total, self.lapsed

    def serving(self, namespace: str, service: str) -> int:
        return self.serves.get(service, 1_000)


def lapse(lease_id: int, *, service: str = "orders", serving: bool = True, draining: bool = False) -> Lapse:
    key = InstanceKey("default", service, f"i{lease_id}")
    return Lapse(lease_id, key, TTL_MS, serving and not draining, draining)


def kept(judgements: list[Judgement]) -> list[int]:
    return [judgement.lapse.lease_id for judgement in judgements if judgement.keep]


def guard() -> Guard:
    return Guard(GuardConfig())


def test_the_first_of_many_is_kept_when_the_others_are_silent() -> None:
    """They fell silent together and run out one after the other."""
    g = guard()
    assert kept(g.judge([lapse(1)], People(100), 0, silent={"default": 15})) == []
    assert kept(g.judge([lapse(2)], People(100), 1, silent={"default": 15})) == [2], "two and 14 others"
    people = People(100, lapsed=1)
    assert g.review(people, 2, silent={"default": 14}) == []
    [ended] = g.review(people, 3, silent={"default": 13})
    assert ended.why == "1 of 100 leases are lapsed, 13 about to"


def test_silence_alone_pauses_nothing() -> None:
    g = guard()
    assert kept(g.judge([lapse(1, draining=True)], People(100), 0, silent={"default": 90})) == []
    assert g.paused() == []


def test_a_few_lapses_expire() -> None:
    judged = guard().judge([lapse(n) for n in range(15)], People(100), 0, silent=NONE)
    assert kept(judged) == []
    assert {judgement.why for judgement in judged} == {NO_KEEP_ALIVE}


def test_over_fifteen_percent_at_once_are_all_kept() -> None:
    g = guard()
    judged = g.judge([lapse(n) for n in range(16)], People(100), 5, silent=NONE)
    assert len(kept(judged)) == 16
    assert g.paused() == ["default"]
    assert g.paused_since_ns("default") == 5
    assert "of 100 leases, more than 15 %" in judged[0].why


def test_fewer_than_five_never_pause() -> None:
    g = guard()
    assert kept(g.judge([lapse(n) for n in range(4)], People(6), 0, silent=NONE)) == []
    assert len(kept(guard().judge([lapse(n) for n in range(5)], People(6), 0, silent=NONE))) == 5


def test_lapses_within_one_ttl_are_counted_together() -> None:
    g = guard()
    people = People(100)
    for n in range(15):
        assert kept(g.judge([lapse(n)], people, n * S // 2, silent=NONE)) == []
        people.total -= 1
        g.removed("default", n)
    assert kept(g.judge([lapse(15)], people, 8 * S, silent=NONE)) == [15]
    assert g.paused() == ["default"]


def test_lapses_further_apart_are_not() -> None:
    g = guard()
    people = People(100)
    for n in range(40):
        assert kept(g.judge([lapse(n)], people, n * S, silent=NONE)) == []
        people.total -= 1
        g.removed("default", n)
    assert g.paused() == []


def test_a_lease_that_came_back_does_not_count() -> None:
    g = guard()
    g.judge([lapse(n) for n in range(15)], People(100), 0, silent=NONE)
    g.restored("default", 3)
    assert kept(g.judge([lapse(99)], People(100), S, silent=NONE)) == []
    assert kept(g.judge([lapse(98)], People(100), S, silent=NONE)) == [98]


def test_a_lease_judged_again_counts_once() -> None:
    """Its record could not be written, so it is still due."""
    g = guard()
    for at in range(20):
        assert kept(g.judge([lapse(n) for n in range(15)], People(100), at, silent=NONE)) == []


def test_the_pause_ends_when_few_are_lapsed() -> None:
    g = guard()
    people = People(100)
    g.judge([lapse(n) for n in range(20)], people, 0, silent=NONE)
    assert g.review(people, 1, silent={"default": 20}) == [], "judged, not folded yet"
    people.lapsed = 20
    assert g.review(people, S, silent=NONE) == []
    for n in range(5):
        g.restored("default", n)
    people.lapsed = 15
    assert g.review(people, 2 * S, silent=NONE) == [], "15 % is not under 15 %"
    g.restored("default", 5)
    people.lapsed = 14
    [ended] = g.review(people, 3 * S, silent=NONE)
    assert ended == ("default", "14 of 100 leases are lapsed, 0 about to")
    assert g.paused() == []


def test_the_pause_outlives_the_ttl_while_many_are_lapsed() -> None:
    g = guard()
    people = People(100)
    g.judge([lapse(n) for n in range(20)], people, 0, silent=NONE)
    people.lapsed = 20
    assert g.review(people, 599 * S, silent=NONE) == []
    assert kept(g.judge([lapse(50)], people, 599 * S, silent=NONE)) == [50]
    [ended] = g.review(people, 600 * S, silent=NONE)
    assert "600 s" in ended.why


def test_an_operator_ends_the_pause_and_the_count_begins_anew() -> None:
    g = guard()
    people = People(100)
    g.judge([lapse(n) for n in range(20)], people, 0, silent=NONE)
    assert g.end("default")
    assert not g.end("default")
    assert kept(g.judge([lapse(50)], people, S, silent=NONE)) == []


def test_a_namespace_that_was_paused_before_a_start_still_is() -> None:
    g = guard()
    g.begin(["default"], People(100, lapsed=15), 7)
    assert g.paused() == []
    g.begin(["default"], People(100, lapsed=16), 7)
    assert g.paused_since_ns("default") == 7


def test_namespaces_are_judged_apart() -> None:
    g = guard()
    g.judge([lapse(n) for n in range(20)], People(100), 0, silent=NONE)
    other = Lapse(500, InstanceKey("other", "orders", "x"), TTL_MS, True, False)
    assert kept(g.judge([other], People(100), 0, silent=NONE)) == []


def test_the_last_that_serves_is_kept() -> None:
    people = People(100, serves={"orders": 1})
    [judged] = guard().judge([lapse(1)], people, 0, silent=NONE)
    assert (judged.keep, judged.why) == (True, LAST_SERVING)


def test_all_that_fall_together_are_kept_when_none_would_serve() -> None:
    people = People(100, serves={"orders": 3})
    assert kept(guard().judge([lapse(1), lapse(2), lapse(3)], people, 0, silent=NONE)) == [1, 2, 3]
    assert kept(guard().judge([lapse(1), lapse(2)], people, 0, silent=NONE)) == []


def test_one_that_does_not_serve_is_kept_only_when_nobody_else_does() -> None:
    assert kept(guard().judge([lapse(1, serving=False)], People(100, serves={"orders": 0}), 0, silent=NONE)) == [1]
    assert kept(guard().judge([lapse(1, serving=False)], People(100, serves={"orders": 1}), 0, silent=NONE)) == []


def test_one_that_drains_has_said_that_it_goes() -> None:
    """It is neither kept as the last nor counted for a pause."""
    g = guard()
    people = People(20, serves={"orders": 0})
    assert kept(g.judge([lapse(n, draining=True) for n in range(20)], people, 0, silent=NONE)) == []
    assert g.paused() == []


def test_nothing_is_remembered_of_a_namespace_at_peace() -> None:
    g = guard()
    g.judge([lapse(1)], People(100), 0, silent=NONE)
    g.review(People(99), 10 * S, silent=NONE)
    assert g._namespaces == {}


def test_it_explains_itself() -> None:
    g = guard()
    assert g.explain("default", People(100)) == "expiry goes on: 0 of 100 leases lapsed within their TTL"
    g.judge([lapse(n) for n in range(16)], People(100), 0, silent=NONE)
    assert g.explain("default", People(100, lapsed=16)).endswith("16 are kept")
