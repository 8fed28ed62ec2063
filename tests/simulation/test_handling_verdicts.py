"""The judges of handling see what they are there for: each is shown a promise that is kept, and one that is broken."""

from __future__ import annotations

from simulation.handling import verdicts
from simulation.handling.delivery_log import Said, Sent
from simulation.handling.verdicts import Letter

from trunkline.api.v1.events_pb2 import Acknowledgement

ACK, NACK, TERM = Acknowledgement.OUTCOME_ACK, Acknowledgement.OUTCOME_NACK, Acknowledgement.OUTCOME_TERM


def sent(at_s: float, offset: int, attempt: int = 1, *, life: int = 1, consumer: str = "a") -> Sent:
    return Sent(at_s, round(at_s * 1e9), life, consumer, offset, attempt)


def letter(offset: int, reason: str = "delivered 3 times; at last", *, attempts: int = 3, id: str = "") -> Letter:
    return Letter(id or str(offset), "clinic", offset, attempts, reason, 9.0)


def test_attempts() -> None:
    kept = [sent(1, 0), sent(3, 0, 3), sent(2, 0, 2), sent(1, 1)]
    assert not list(verdicts.broke_attempts_counted(kept, 3))
    assert len(list(verdicts.broke_attempts_counted([*kept, sent(4, 0, 3)], 3))) == 1
    assert len(list(verdicts.broke_attempts_counted([*kept, sent(4, 0, 4)], 3))) == 1


def settled(
    sent_: list[Sent], said: list[Said], *, durable: bool, letters: dict[int, list[float]] | None = None
) -> int:
    return len(
        list(
            verdicts.broke_settled_stays_settled(
                sent_, said, ack_deadline_s=1.0, durable=lambda _: durable, letters=letters or {}
            )
        )
    )


def test_settled_stays_settled() -> None:
    first, again, by_another_server = sent(1, 0), sent(2, 0, 2), sent(2, 0, 2, life=2)
    word = Said(1.5, 1, "a", 0, ACK)
    assert settled([first], [word], durable=True) == 0
    assert settled([first, again], [word], durable=False) == 1
    assert settled([first, by_another_server], [word], durable=False) == 0
    assert settled([first, by_another_server], [word], durable=True) == 1
    assert settled([first, again], [word._replace(outcome=TERM)], durable=False) == 1
    assert settled([first], [word], durable=True, letters={0: [5.0]}) == 1
    assert settled([first], [word._replace(outcome=TERM)], durable=True, letters={0: [5.0]}) == 0
    for counts_not in (word._replace(outcome=NACK), word._replace(consumer="b"), word._replace(at_s=1.97)):
        assert settled([first, again], [counts_not], durable=True) == 0


def test_one_dead_letter() -> None:
    twice = [letter(0, id="x"), letter(0, id="y")]
    assert not list(verdicts.broke_one_dead_letter([letter(0), letter(1)], {}))
    assert not list(verdicts.broke_one_dead_letter(twice, {("clinic", 0): 1}))
    assert len(list(verdicts.broke_one_dead_letter(twice, {}))) == 1
    assert len(list(verdicts.broke_one_dead_letter([letter(0), letter(0)], {("clinic", 0): 1}))) == 1


def test_a_dead_letter_is_owed() -> None:
    assert not list(verdicts.broke_owed_dead_letter([0, 1], {0}, {1}))
    assert len(list(verdicts.broke_owed_dead_letter([0, 1, 2], {0}, {1}))) == 1


def test_a_dead_letter_is_deserved() -> None:
    fates = {0: "fine", 1: "unwanted", 2: "doomed"}

    def broken(one: Letter) -> int:
        return len(list(verdicts.broke_deserved([one], max_deliveries=3, fates=fates)))

    kept = (letter(0), letter(1, "unwanted: 1", attempts=1), letter(2, "delivered 3 times; doomed: 2"))
    assert [broken(one) for one in kept] == [0, 0, 0]
    wrong = (
        letter(0, "unwanted: 0"),
        letter(0, "delivered 3 times; doomed: 0"),
        letter(1, "unwanted: 1", attempts=4),
        letter(2, attempts=2),
        letter(2, "delivered 2 times", attempts=2),
        letter(2, ""),
    )
    assert [broken(one) for one in wrong] == [1] * len(wrong)


def test_lanes_go_forward() -> None:
    keys = {0: "a", 1: "b", 2: "a"}.__getitem__
    assert not list(verdicts.broke_lanes_forward([sent(1, 0), sent(2, 0, 2), sent(3, 2), sent(4, 1)], keys))
    assert not list(verdicts.broke_lanes_forward([sent(1, 2), sent(2, 0, 2, life=2), sent(3, 2, 2, life=2)], keys))
    assert len(list(verdicts.broke_lanes_forward([sent(1, 2), sent(2, 0)], keys))) == 1


def test_no_lane_waits() -> None:
    def limit_s(at_s: float) -> float:
        return at_s + 2.0

    assert not list(verdicts.broke_no_lane_waits({0: 1.0}, {0: 2.9}, limit_s))
    assert len(list(verdicts.broke_no_lane_waits({0: 1.0}, {0: 3.1}, limit_s))) == 1
    assert len(list(verdicts.broke_no_lane_waits({0: 1.0}, {}, limit_s))) == 1


def test_expired() -> None:
    assert not list(verdicts.broke_expired([sent(1, 0), sent(1, 1)], {0: 1_000_000_000}))
    assert len(list(verdicts.broke_expired([sent(2, 0)], {0: 1_000_000_000}))) == 1


def test_asked_again() -> None:
    assert not list(verdicts.broke_asked_again([sent(1, 0), sent(3, 0)], [0], 2.0))
    assert len(list(verdicts.broke_asked_again([sent(1, 0)], [0], 2.0))) == 1
