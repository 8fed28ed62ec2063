"""Who is picked, and among whom."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from reference.registry_facts import Journal, instance
from reference.unwaited import answered
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import InvalidArgument, NoInstance, NotSupported
from trunkline.core.model import Declared, Endpoint, Locality
from trunkline.core.policy import Algorithm
from trunkline.core.selector import Selector
from trunkline.core.work import PIECE
from trunkline.server.discovery import picker
from trunkline.server.discovery.evaluation import evaluator_in_slices
from trunkline.server.discovery.picker import PICKER_ENTRIES, PickerConfig, Pickers
from trunkline.server.registry.fold import RegistryFold

ANY = Selector()


class Registry:
    """A fold, and the pickers that are told of what it does."""

    def __init__(self, config: PickerConfig | None = None) -> None:
        self.fold = RegistryFold(collecting=True)
        self.pickers = Pickers(self.fold, Rng(3), config, clock=ManualClock())
        self.journal = Journal()

    def register(self, name: str, service: str = "orders", **fields: Any) -> None:
        number = len(self.fold) + 1
        declared = instance(name, service, endpoints=(Endpoint(f"10.0.0.{number}", 80),), **fields)
        self.apply(self.journal.registered(declared, lease_id=number))

    def apply(self, record: object) -> None:
        self.fold.apply(record)  # type: ignore[arg-type]
        changes, self.fold.changes = self.fold.changes, []
        self.pickers.apply(changes)

    def pick(self, policy: Algorithm = Algorithm.ROUND_ROBIN, key: str = "", service: str = "orders") -> str:
        return answered(self.pickers.pick("default", service, ANY, policy, key)).instance.instance.id

    def picks(self, policy: Algorithm, count: int) -> Counter[str]:
        return Counter(self.pick(policy, f"key {number}") for number in range(count))


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for name, weight in (("a", 100), ("b", 100), ("c", 300)):
        made.register(name, weight=weight)
    return made


def test_round_robin_goes_by_weight(registry: Registry) -> None:
    assert registry.picks(Algorithm.ROUND_ROBIN, 50) == {"a": 10, "b": 10, "c": 30}


def test_round_robin_is_fair_although_it_begins_anew_with_every_change(registry: Registry) -> None:
    first: Counter[str] = Counter()
    for number in range(300):
        registry.register("c", weight=100 + number % 2)
        first[registry.pick()] += 1
    assert min(first[name] for name in "abc") > 50


def test_weighted_random_goes_by_weight_and_random_does_not(registry: Registry) -> None:
    weighted = registry.picks(Algorithm.WEIGHTED_RANDOM, 5_000)
    assert 2_700 < weighted["c"] < 3_300
    plain = registry.picks(Algorithm.RANDOM, 5_000)
    assert 1_400 < plain["c"] < 1_950


@pytest.mark.parametrize("policy", [Algorithm.RING_HASH, Algorithm.MAGLEV])
def test_hashing_keeps_a_key_where_it_is(registry: Registry, policy: Algorithm) -> None:
    keys = [f"user {number}" for number in range(200)]
    before = {key: registry.pick(policy, key) for key in keys}
    assert len(set(before.values())) == 3
    registry.register("d", weight=100)
    moved = {key for key in keys if registry.pick(policy, key) != before[key]}
    assert len(moved) < 100
    strays = [key for key in moved if registry.pick(policy, key) != "d"]
    assert len(strays) <= 15, "shares are rounded anew, which moves a few others; not more"


@pytest.mark.parametrize("policy", [Algorithm.RING_HASH, Algorithm.MAGLEV])
def test_hashing_needs_a_key(registry: Registry, policy: Algorithm) -> None:
    with pytest.raises(InvalidArgument, match="hash_key"):
        registry.pick(policy)


def test_least_request_is_refused(registry: Registry) -> None:
    with pytest.raises(NotSupported):
        registry.pick(Algorithm.LEAST_REQUEST)


def test_the_best_that_there_are_are_picked(registry: Registry) -> None:
    a, b, c = (f"instance/default/orders/{name}" for name in "abc")
    registry.apply(registry.journal.declared(a, Declared.DEGRADED))
    registry.apply(registry.journal.lapsed(b, 2))
    assert set(registry.picks(Algorithm.RANDOM, 50)) == {"c"}
    registry.apply(registry.journal.removed(c))
    assert set(registry.picks(Algorithm.RANDOM, 50)) == {"a"}
    registry.apply(registry.journal.removed(a))
    assert set(registry.picks(Algorithm.RANDOM, 50)) == {"b"}, "stale behind every live one, but not gone"
    assert answered(registry.pickers.pick("default", "orders", ANY, Algorithm.RANDOM)).candidates == 1
    registry.apply(registry.journal.removed(b))
    with pytest.raises(NoInstance):
        registry.pick()


def test_nobody_matches(registry: Registry) -> None:
    with pytest.raises(NoInstance):
        answered(registry.pickers.pick("default", "orders", Selector(version="^2.0.0"), Algorithm.RANDOM))
    with pytest.raises(NoInstance):
        registry.pick(service="nowhere")


def test_what_is_kept_is_bounded() -> None:
    registry = Registry(PickerConfig(entries_max=100))
    for number in range(50):
        registry.register("a", f"s{number}")
        registry.register("b", f"s{number}")
    for _ in range(2):
        assert {registry.pick(service=f"s{number}") for number in range(50)} <= {"a", "b"}
    assert registry.pickers.entries <= 100
    registry.pick(Algorithm.MAGLEV, "key", service="s1")
    assert registry.pickers.entries <= 100, "larger than all that may be kept: used once"


def test_where_a_caller_is_makes_no_picker_when_the_policy_does_not_ask(registry: Registry) -> None:
    for number in range(20):
        answered(registry.pickers.pick("default", "orders", ANY, locality=Locality(zone=f"z-{number}")))
    first = registry.pickers.entries
    answered(registry.pickers.pick("default", "orders", ANY))
    assert registry.pickers.entries == first == 2 * 3 + PICKER_ENTRIES


def test_that_nobody_matches_is_worked_out_once(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counting(*args: Any, **how: Any) -> Any:
        made.append(args[2])
        return evaluator_in_slices(*args, **how)

    monkeypatch.setattr(picker, "evaluator_in_slices", counting)
    for _ in range(3):
        with pytest.raises(NoInstance):
            answered(registry.pickers.pick("default", "orders", Selector(version="^9")))
    assert made == ["orders"]
    entries = registry.pickers.entries
    for number in range(3):
        with pytest.raises(NoInstance):
            registry.pick(service=f"nowhere-{number}")
    assert registry.pickers.entries == entries
    registry.register("d", version="9.0.0")
    assert answered(registry.pickers.pick("default", "orders", Selector(version="^9"))).instance.instance.id == "d"


# Thousands.

MANY = 2 * PIECE


@pytest.fixture
def crowd() -> Registry:
    made = Registry()
    for number in range(MANY):
        made.register(f"i{number:05}")
    return made


async def test_one_build_serves_all_who_pick_meanwhile(crowd: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []

    def counting(*args: Any, **how: Any) -> Any:
        builds.append(args[2])
        return evaluator_in_slices(*args, **how)

    monkeypatch.setattr(picker, "evaluator_in_slices", counting)
    running = asyncio.create_task(crowd.pickers.work.run())
    crowd.register("changed")
    tasks = [asyncio.create_task(crowd.pickers.pick("default", "orders", ANY)) for _ in range(30)]
    picked = await asyncio.gather(*tasks)
    assert builds == ["orders"]
    assert {one.candidates for one in picked} == {MANY + 1}
    assert answered(crowd.pickers.pick("default", "orders", ANY)).candidates == MANY + 1, "kept"
    running.cancel()


async def test_a_change_while_it_is_built_reaches_who_picks_after_it(crowd: Registry) -> None:
    running = asyncio.create_task(crowd.pickers.work.run())
    crowd.register("x")
    before = asyncio.create_task(crowd.pickers.pick("default", "orders", ANY))
    await asyncio.sleep(0)
    count = len(crowd.fold)
    crowd.apply(crowd.journal.removed("instance/default/orders/x"))
    after = asyncio.create_task(crowd.pickers.pick("default", "orders", ANY))
    assert (await before).candidates == count, "as of when it began"
    assert (await after).candidates == count - 1
    assert answered(crowd.pickers.pick("default", "orders", ANY)).candidates == count - 1
    crowd.register("x")
    before = asyncio.create_task(crowd.pickers.pick("default", "orders", ANY))
    await asyncio.sleep(0)
    crowd.apply(crowd.journal.removed("instance/default/orders/x"))
    assert (await before).candidates == count
    assert (await crowd.pickers.pick("default", "orders", ANY)).candidates == count - 1, "the older is not kept"
    running.cancel()


async def test_who_is_not_answered_in_time_leaves_the_others_theirs(crowd: Registry) -> None:
    running = asyncio.create_task(crowd.pickers.work.run())
    crowd.register("y")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await crowd.pickers.pick("default", "orders", ANY)
    assert (await crowd.pickers.pick("default", "orders", ANY)).candidates == len(crowd.fold)
    assert crowd.pickers._making == {}
    running.cancel()
