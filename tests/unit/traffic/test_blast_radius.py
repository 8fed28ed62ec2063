"""What a change of policy takes away, computed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reference.registry_facts import instance
from trunkline.core.errors import BlastRadius
from trunkline.core.hashing import xxh64
from trunkline.core.model import Endpoint, RegisteredInstance, Status
from trunkline.core.parts import Parts
from trunkline.core.policy import (
    PLAIN,
    Algorithm,
    BreakerMode,
    CircuitBreaker,
    Destination,
    Forced,
    LoadBalancingPolicy,
    Policy,
    Split,
    Subset,
)
from trunkline.core.ring import Ring
from trunkline.server.traffic.blast_radius import (
    KEYS,
    TABLE_SIZES,
    Limits,
    Radius,
    pools_of,
    radius_of,
    refuse_beyond,
    table_sizes,
)


def one(
    number: int, version: str = "1.0.0", *, weight: int = 100, status: Status = Status.SERVING
) -> RegisteredInstance:
    made = instance(
        f"i-{number}", version=version, weight=weight, endpoints=(Endpoint(f"10.0.0.{number}", 80),),
        labels={"track": "canary" if number % 2 else "main"},
    )  # fmt: skip
    return RegisteredInstance(
        instance=made, status=status, status_reason="", created_revision=1, modified_revision=1, registered_at_ns=0
    )


OLD, NEW = [one(n) for n in range(1, 9)], [one(n, "2.0.0", weight=200) for n in range(9, 11)]
ALL = OLD + NEW


def split(*destinations: Destination, **more: object) -> Policy:
    return Policy(split=Split(destinations=destinations), **more)  # type: ignore[arg-type]


def v(version: str, weight: int = 1) -> Destination:
    return Destination(version=version, weight=weight)


def hashing(algorithm: Algorithm = Algorithm.RING_HASH, **fields: int) -> Policy:
    return Policy(load_balancing=LoadBalancingPolicy(algorithm=algorithm, **fields))  # type: ignore[arg-type]


def radius(before: Policy, after: Policy, instances: Sequence[RegisteredInstance] = ALL) -> Radius:
    work = radius_of("cart", instances, before, after)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: Radius = done.value
            return found


@pytest.mark.parametrize(
    ("after", "capacity"),
    [
        (PLAIN, 1_200),
        (split(v("1.x")), 800),
        (split(v("2.x")), 400),
        (split(v("1.x"), v("2.x")), 1_200),
        (split(v("1.x"), v("2.x", 0)), 800),
        (split(v("2.x"), v("9.x")), 400),
        (split(v("9.x")), 0),
        (split(v("2.x"), v(">=2.0.0")), 400),
        (
            split(Destination(subset="canary", weight=1), subsets=(Subset(name="canary", labels={"track": "canary"}),)),
            600,
        ),
        (split(Destination(subset="gone", weight=1)), 0),
        (Policy(circuit_breaker=CircuitBreaker(forced=Forced.OPEN)), 0),
        (Policy(endpoint_circuit_breaker=CircuitBreaker(forced=Forced.OPEN, mode=BreakerMode.GRADUAL)), 0),
        (Policy(circuit_breaker=CircuitBreaker(forced=Forced.DISABLED)), 1_200),
    ],
)
def test_capacity_is_the_weight_of_those_that_get_calls(after: Policy, capacity: int) -> None:
    found = radius(PLAIN, after)
    assert (found.capacity_before, found.capacity_after) == (1_200, capacity)
    assert found.capacity_removed == pytest.approx(100 * (1_200 - capacity) / 1_200)
    assert radius(after, PLAIN).capacity_removed == 0


def test_only_the_best_tier_gets_calls() -> None:
    stale, ill = one(20, status=Status.STALE), one(21, "3.0.0", status=Status.NOT_SERVING)
    degraded = one(22, "3.0.0", status=Status.DEGRADED)
    assert radius(PLAIN, PLAIN, [*ALL, stale, ill, degraded]).capacity_before == 1_200
    assert radius(PLAIN, PLAIN, [stale, ill]).capacity_before == 100
    everybody = [*ALL, degraded, one(23, "4.0.0", status=Status.STALE)]
    assert radius(PLAIN, split(v("3.x"), v("4.x")), everybody).capacity_after == 100
    assert radius(PLAIN, split(v("3.x"), v("2.x")), everybody).capacity_after == 500
    assert radius(PLAIN, PLAIN, []) == Radius("cart", 0, 0, 0.0)


def test_keys_move_where_the_ring_says() -> None:
    members = {registered.instance.endpoints[0].address: registered for registered in ALL}
    homes = []
    for part in (ALL, OLD):
        hosts = [registered.instance.endpoints[0].address for registered in part]
        ring = Ring(hosts, [members[host].instance.weight for host in hosts], maximum_ring_size=65_536)
        homes.append([hosts[ring.locate(xxh64(key))] for key in KEYS])
    moved = sum(before != after for before, after in zip(*homes, strict=True))
    after = Policy(load_balancing=hashing().load_balancing, split=Split(destinations=(v("1.x"),)))
    found = radius(hashing(), after)
    assert found.keys_moved == pytest.approx(100 * moved / len(KEYS))
    assert 30 < found.keys_moved < 60, "a third of the weight is gone, and with it its keys; rounding moves some more"


def test_what_is_not_hashed_has_no_home() -> None:
    assert radius(PLAIN, hashing()).keys_moved == 0
    assert radius(hashing(), PLAIN).keys_moved == 100
    assert radius(hashing(), hashing()).keys_moved == 0
    assert radius(hashing(), hashing(Algorithm.MAGLEV)).keys_moved > 80
    assert radius(hashing(Algorithm.MAGLEV), hashing(Algorithm.MAGLEV, table_size=65_521)).keys_moved > 50
    assert radius(hashing(), hashing(maximum_ring_size=8_388_608)).keys_moved == 0


def test_shares_move_only_what_they_change() -> None:
    """A key goes to one destination by chance: 90 of 100 calls of it stay when a share of 10 goes elsewhere."""

    def at(old: int, new: int) -> Policy:
        return Policy(load_balancing=hashing().load_balancing, split=Split(destinations=(v("1.x", old), v("2.x", new))))

    assert radius(at(100, 0), at(90, 10)).keys_moved == pytest.approx(10)
    assert radius(at(90, 10), at(50, 50)).keys_moved == pytest.approx(40)
    assert radius(at(100, 0), at(0, 100)).keys_moved == pytest.approx(100)


@pytest.mark.parametrize(
    ("before", "after"), [(7, 11), (65_537, 5_000_011), (5_000_011, 65_537), (65_521, 5_000_011), (70_001, 80_021)]
)
def test_large_tables_are_stood_for_by_smaller_ones_that_differ_as_they_do(before: int, after: int) -> None:
    sizes = table_sizes(before, after)
    assert len(set(sizes)) == 2
    assert max(sizes) <= TABLE_SIZES[0]
    assert table_sizes(after, before) == sizes[::-1]
    assert len(set(table_sizes(after, after))) == 1
    assert max(table_sizes(after, after)) <= TABLE_SIZES[0]


def test_shares_of_pools_are_those_of_destinations_that_have_instances() -> None:
    pools = pools_of(split(v("1.x", 3), v("2.x", 1), v("9.x", 96)), ALL)
    assert [(share, len(pool)) for share, pool in pools] == [(0.75, 8), (0.25, 2)]


def test_the_limit_itself_is_allowed() -> None:
    half = Radius("cart", 100, 50, 50.0)
    refuse_beyond([half], Limits())
    with pytest.raises(BlastRadius) as refused:
        refuse_beyond([half, Radius("mail", 100, 49, 0.0)], Limits())
    assert refused.value.fields == {"service": "mail", "share": "51", "limit": "50"}
    with pytest.raises(BlastRadius, match="cart: 50 % of its keys would move"):
        refuse_beyond([half], Limits(keys_moved=49))
    refuse_beyond([Radius("cart", 100, 0, 100.0)], Limits(100, 100))


def test_no_slice_looks_at_more_than_one_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    places_of = Parts.places_of

    def counting(parts: Parts, destination: Destination | None) -> list[int]:
        looked[-1] += 1
        return places_of(parts, destination)

    monkeypatch.setattr(Parts, "places_of", counting)
    work = radius_of("cart", ALL, split(*(v(f"1.{minor}") for minor in range(20))), split(v("1.x"), v("2.x")))
    looked.append(0)
    for _ in work:
        looked.append(0)
    assert (sum(looked), max(looked)) == (22, 1)
