"""The judges of policies see what they are there for: each is shown a promise that is kept, and one that is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulation.clients import NAMESPACE
from simulation.policies import verdicts
from simulation.policies.log import APPLY, DELETE, ROLL_BACK, Asked, Held, Past, ReadHistory, ReadPolicy, Shown, Telling
from simulation.policies.model import Change, Model
from simulation.policies.sayings import contradictions, sections_of

from trunkline.api.v1 import policy_pb2
from trunkline.api.v1.policy_pb2 import EffectivePolicy, TrafficPolicy


def limited(service: str, most: int) -> TrafficPolicy:
    return TrafficPolicy(namespace=NAMESPACE, service=service, limits=policy_pb2.Limits(max_requests=most))


ONE, TWO, ALL = limited("cart", 1), limited("cart", 2), limited("", 9)
MODEL = Model(
    [
        Change(3, "cart", ONE, "a"),
        Change(5, "", ALL, "b"),
        Change(6, "cart", TWO, "c"),
        Change(8, "cart", None, "d"),
        Change(9, "cart", ONE, "e"),
    ]
)


def count(broken: Iterator[str]) -> int:
    return len(list(broken))


def asked(reason: str = "c", kind: str = APPLY, policy: TrafficPolicy | None = TWO, **more: Any) -> Asked:
    answer = {"answered": True, "changed": True, "revision": 6, **more}
    return Asked(reason=reason, kind=kind, service="cart", policy=policy, **answer)


def kept(*those: Asked, model: Model = MODEL) -> int:
    return count(verdicts.broke_acknowledged_is_kept(those, model))


def test_what_was_acknowledged_is_kept() -> None:
    assert kept(asked(), asked("d", DELETE, None, revision=8), asked("e", ROLL_BACK, None, to=4, revision=9)) == 0
    assert kept(asked("x", answered=False), asked("x", changed=False)) == 0
    assert kept(asked("x")) == 1
    assert kept(asked(changed=False)) == 1
    assert kept(asked(revision=5)) == 1
    assert kept(asked(policy=ONE)) == 1
    assert kept(asked("c", DELETE, None)) == 1
    assert kept(asked("e", ROLL_BACK, None, to=7, revision=9)) == 1
    assert kept(asked("e", ROLL_BACK, None, revision=9)) == 0
    assert kept(asked("a", ROLL_BACK, None, revision=3)) == 1  # there was nothing to go back to
    twice = Model([*MODEL.changes, Change(10, "cart", TWO, "c")])
    assert kept(asked(), model=twice) == 2  # the second is behind the answer, too


def test_what_was_refused_or_was_to_be_tried_is_not_made() -> None:
    assert kept(asked(answered=False, refused="RevisionMismatch")) == 1
    assert kept(asked(dry_run=True)) == 1
    assert kept(asked("x", dry_run=True), asked("y", answered=False, refused="InvalidArgument")) == 0


def test_a_change_stands_behind_what_it_was_made_against() -> None:
    def broken(**more: Any) -> int:
        return count(verdicts.broke_expectations([asked(**more)], MODEL))

    assert broken() + broken(expected=3) + broken(reason="e", expected=0) + broken(reason="x", expected=1) == 0
    assert broken(expected=5) == 1
    assert broken(reason="e", expected=8) == 1


def test_contradictions() -> None:
    def held(text: str) -> dict[str, Any]:
        policy = TrafficPolicy(namespace=NAMESPACE, service="cart")
        if "slow" in text:
            policy.retry.per_try_timeout.seconds = 2
        if "short" in text:
            policy.timeout.seconds = 1
        if "blue" in text:
            policy.split.destinations.add(subset="blue", weight=1)
        if "knows" in text:
            policy.subsets.add(name="blue")
        policy.fallback.service = "pay" if "pay" in text else "mail" if "mail" in text else ""
        return dict(sections_of(policy))

    assert not contradictions({"cart": held("slow blue knows, falls back to pay"), "pay": held("short, to mail")})
    assert len(contradictions({"cart": held("slow and short")})) == 1
    assert len(contradictions({"cart": held("blue")})) == 1
    assert len(contradictions({"cart": held("to pay"), "pay": held("to mail"), "mail": held("to pay")})) == 1


def test_nothing_contradictory_holds() -> None:
    quick = TrafficPolicy(namespace=NAMESPACE, service="cart")
    quick.timeout.seconds = 1
    slow = TrafficPolicy(namespace=NAMESPACE)
    slow.retry.per_try_timeout.seconds = 2
    assert count(verdicts.broke_no_contradiction(Model([Change(1, "cart", quick, "a"), Change(2, "", ALL, "b")]))) == 0
    assert count(verdicts.broke_no_contradiction(Model([Change(1, "cart", quick, "a"), Change(2, "", slow, "b")]))) == 1


def test_changes_change() -> None:
    assert count(verdicts.broke_changes_change(MODEL)) == 0
    assert count(verdicts.broke_changes_change(Model([Change(1, "", ALL, "a"), Change(2, "", ALL, "b")]))) == 1
    assert count(verdicts.broke_changes_change(Model([Change(1, "", None, "a")]))) == 1


def history(at_least: int, *changes: tuple[int, TrafficPolicy | None, str]) -> int:
    read = ReadHistory("cart", at_least, [Past(*change) for change in changes])
    return count(verdicts.broke_history([read], MODEL))


def test_histories() -> None:
    past = (8, None, "d"), (6, TWO, "c"), (3, ONE, "a")
    assert history(8, *past) + history(7, *past) + history(0) == 0
    assert history(9, *past) == 1  # too old
    assert history(8, past[0], past[2]) == 1
    assert history(8, past[0], (6, ONE, "c"), past[2]) == 1
    assert history(3) == 1


def test_reads() -> None:
    def broken(at_least: int, own: int, most: int, revision: int) -> int:
        read = ReadPolicy("cart", at_least, own, limited("cart", most), revision)
        return count(verdicts.broke_reads([read], MODEL))

    assert broken(6, 6, 2, 6) + broken(0, 3, 1, 3) + broken(7, 0, 9, 8) == 0
    assert broken(8, 6, 2, 6) == 1  # older than what was answered
    assert broken(6, 3, 2, 6) == 1  # its own is an older one
    assert broken(6, 6, 1, 6) == 1
    assert broken(0, 6, 2, 7) == 1  # nothing changed then


def held(service: str, most: int, revision: int) -> Held:
    policy = limited(service, most)
    return Held(revision, EffectivePolicy(service=service, policy=policy, revision=revision))


def told(*shown: tuple[int, dict[str, Held]], service: str = "cart", before: dict[str, Held] | None = None) -> Telling:
    return Telling("w", service, before, [Shown(*one) for one in shown])


CART = {revision: held("cart", most, revision) for revision, most in ((3, 1), (5, 1), (6, 2), (8, 9), (9, 1))}
REST = held("", 9, 5)


def test_what_is_told_is_whole() -> None:
    def broken(telling: Telling) -> int:
        return count(verdicts.broke_told_whole(telling, MODEL))

    assert broken(told(*((revision, {"cart": one}) for revision, one in CART.items()))) == 0
    assert broken(told((6, {"cart": held("cart", 1, 6)}))) == 1
    assert broken(told((7, {"cart": held("cart", 2, 7)}))) == 1  # of a revision that changed nothing
    assert broken(told((9, {"cart": held("cart", 2, 12)}))) == 1  # of one that is not kept


def test_nothing_is_left_out() -> None:
    def broken(telling: Telling) -> int:
        return count(verdicts.broke_told_all(telling, MODEL))

    assert broken(told((2, {}), (4, {"cart": CART[3]}), (5, {"cart": CART[6]}))) == 0  # it may be ahead
    assert broken(told((4, {}))) == 1
    assert broken(told((6, {"cart": CART[5]}))) == 1
    assert broken(told((6, {"cart": CART[6]}), service="")) == 1
    assert broken(told((6, {"cart": CART[6], "": REST}), service="")) == 0
    assert broken(told((6, {"mail": held("mail", 9, 5)}), service="mail")) == 0
    assert broken(told((6, {}), service="mail")) == 1


def test_nothing_older_is_told() -> None:
    def broken(telling: Telling) -> int:
        return count(verdicts.broke_never_older(telling))

    assert broken(told((3, {"cart": CART[3]}), (6, {"cart": CART[6]}), before={"cart": CART[3]})) == 0
    assert broken(told((6, {"cart": CART[6]}), (7, {"cart": CART[3]}))) == 1
    assert broken(told((6, {"cart": CART[6]}), (7, {}))) == 1
    assert broken(told((3, {"cart": CART[3]}), before={"cart": CART[6]})) == 1


def test_a_watch_ends_with_what_holds() -> None:
    def broken(telling: Telling) -> int:
        return count(verdicts.broke_ends_right(telling, MODEL, 9))

    assert broken(told((9, {"cart": CART[9], "": REST}), service="")) == 0
    assert broken(told((9, {"cart": CART[9]}))) == 0
    assert broken(told((9, {"cart": CART[8]}))) == 1
    assert broken(told()) == 1
    assert broken(told((9, {"cart": CART[9], "pay": held("pay", 9, 5), "": REST}), service="")) == 1
