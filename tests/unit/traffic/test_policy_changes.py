"""Policies of a whole control plane: applied, refused, shown, listed, deleted, taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from reference.registry_world import virtual
from reference.traffic_world import BY, World, policy, register
from trunkline.api.v1 import policy_pb2
from trunkline.core.errors import (
    BlastRadius,
    InvalidArgument,
    LimitExceeded,
    PolicyNotFound,
    RevisionCompacted,
    RevisionInFuture,
    RevisionMismatch,
)
from trunkline.core.policy import PLAIN, Forced
from trunkline.server.journal.log import Retention
from trunkline.server.plane import ControlPlane, PlaneConfig
from trunkline.server.traffic.blast_radius import Limits, Radius
from trunkline.server.traffic.config import TrafficConfig
from trunkline.server.traffic.decision import Decision
from trunkline.server.traffic.traffic import Wish

ANYHOW = Wish()
Lb = policy_pb2.LoadBalancingPolicy
Limits_ = policy_pb2.Limits


def limited(service: str, most: int) -> policy_pb2.TrafficPolicy:
    return policy(service, limits=Limits_(max_requests=most))


def falls_back(service: str, to: str) -> policy_pb2.TrafficPolicy:
    return policy(service, fallback=policy_pb2.Fallback(service=to))


def on_v(service: str, *ranges: str) -> policy_pb2.TrafficPolicy:
    destinations = [policy_pb2.Split.Destination(version=text, weight=1) for text in ranges]
    return policy(service, split=policy_pb2.Split(destinations=destinations))


def in_plane(test: Callable[[ControlPlane], Awaitable[None]], config: PlaneConfig | None = None) -> None:
    async def main() -> None:
        async with World(config).running() as plane:
            await test(plane)

    virtual(main)


def test_a_policy_holds_from_its_revision_on() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        assert traffic.policies.effective("default", "cart") == PLAIN
        made = await traffic.apply(limited("cart", 7), ANYHOW, BY)
        assert made.changed
        assert made.entity is not None
        assert (made.entity.author, made.entity.reason) == ("token/ops", "a test")
        held = traffic.policies.get("default", "cart")
        assert (held.message, held.policy.limits.max_requests) == (limited("cart", 7), 7)
        revision = held.revision
        assert revision == held.policy.revision == made.entity.revision == plane.control.sequencer.revision
        again = await traffic.apply(limited("cart", 7), ANYHOW, BY)
        assert (again.changed, again.entity) == (False, made.entity)
        assert plane.control.sequencer.revision == revision

    in_plane(test)


def test_a_services_sections_lie_over_the_namespaces() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        default = policy("", limits=Limits_(max_requests=1), healthy_panic_threshold=10)
        own = policy("cart", limits=Limits_(max_requests_per_endpoint=2), healthy_panic_threshold=0)
        await traffic.apply(default, ANYHOW, BY)
        await traffic.apply(own, ANYHOW, BY)
        cart, mail = (traffic.policies.effective("default", service) for service in ("cart", "mail"))
        assert (cart.limits.max_requests, cart.limits.max_requests_per_endpoint) == (0, 2)
        assert (cart.healthy_panic_threshold, mail.healthy_panic_threshold) == (0, 10)
        assert mail.limits.max_requests == 1
        before = cart.revision
        changed = await traffic.apply(policy("", timeout={"seconds": 3}), ANYHOW, BY)
        assert changed.entity is not None
        cart = traffic.policies.effective("default", "cart")
        assert (cart.timeout_ns, cart.revision) == (3_000_000_000, changed.entity.revision)
        assert cart.revision > before
        await traffic.delete("default", "cart", ANYHOW, BY)
        cart = traffic.policies.effective("default", "cart")
        assert cart.limits == PLAIN.limits
        assert cart.revision > changed.entity.revision, "what holds never gets older"

    in_plane(test)


def test_a_change_may_name_the_revision_it_was_made_against() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        made = await traffic.apply(limited("cart", 1), Wish(expected=0), BY)
        assert made.entity is not None
        revision = made.entity.revision
        for expected in (0, revision - 1, revision + 1):
            with pytest.raises(RevisionMismatch) as refused:
                await traffic.apply(limited("cart", 2), Wish(expected=expected), BY)
            assert refused.value.fields["revision"] == str(revision)
        both = [traffic.apply(limited("cart", most), Wish(expected=revision), BY) for most in (2, 3)]
        results = await asyncio.gather(*both, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Changed", "RevisionMismatch"]
        await traffic.delete("default", "cart", ANYHOW, BY)
        assert (await traffic.apply(limited("cart", 4), Wish(expected=0), BY)).changed

    in_plane(test)


def test_a_repeated_request_changes_nothing_again() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic, origin = plane.traffic, BY._replace(request_id="apply-1")
        first = await traffic.apply(limited("cart", 1), Wish(expected=0), origin)
        again = await traffic.apply(limited("cart", 1), Wish(expected=0), origin)
        assert again[:2] == first[:2]
        await traffic.apply(limited("cart", 2), ANYHOW, BY)
        late = await traffic.apply(limited("cart", 1), Wish(expected=0), origin)
        assert late.changed
        assert late.entity is not None
        assert late.entity.policy == limited("cart", 2)

    in_plane(test)


def test_a_dry_run_says_what_would_be_and_writes_nothing() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        await register(plane, "cart", ["a", "b"])
        await register(plane, "cart", ["c"], version="2.0.0")
        revision = plane.control.sequencer.revision
        made = await traffic.apply(on_v("cart", "1.x"), Wish(dry_run=True), BY)
        assert made.changed
        assert made.entity is not None
        assert (made.entity.policy, made.entity.revision) == (on_v("cart", "1.x"), 0)
        assert [(r.capacity_before, r.capacity_after) for r in made.radii] == [(300, 200)]
        with pytest.raises(BlastRadius):
            await traffic.apply(on_v("cart", "2.x"), Wish(dry_run=True), BY)
        assert plane.control.sequencer.revision == revision
        assert traffic.own("default", "cart") is None
        with pytest.raises(PolicyNotFound):
            await traffic.delete("default", "cart", Wish(dry_run=True), BY)

    in_plane(test)


def test_a_change_that_takes_away_too_much_is_refused_unless_forced() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        await register(plane, "cart", ["a", "b", "c"])
        await register(plane, "cart", ["d"], version="2.0.0")
        with pytest.raises(BlastRadius) as refused:
            await traffic.apply(on_v("cart", "2.x"), ANYHOW, BY)
        assert refused.value.fields == {"service": "cart", "share": "75", "limit": "50"}
        assert traffic.own("default", "cart") is None
        assert (await traffic.apply(on_v("cart", "2.x"), Wish(limits=Limits(capacity_removed=75)), BY)).changed
        forced = await traffic.apply(on_v("cart", "9.x"), Wish(force=True), BY)
        assert [radius.capacity_removed for radius in forced.radii] == [100]

    in_plane(test)


def test_a_change_is_judged_anew_when_another_was_made_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        await register(plane, "cart", ["a", "b", "c"])
        await register(plane, "cart", ["d"], version="2.0.0")
        judge, judged = traffic._judge, []

        async def interrupted(decision: Decision, wish: Wish) -> list[Radius]:
            radii = await judge(decision, wish)
            judged.append(radii)
            if len(judged) == 1:
                await traffic.apply(on_v("cart", "2.x"), Wish(force=True), BY)
            return radii

        monkeypatch.setattr(traffic, "_judge", interrupted)
        made = await traffic.apply(on_v("cart", "1.x"), ANYHOW, BY)
        assert [(one[0].capacity_before, one[0].capacity_after) for one in judged] == [
            (400, 300),
            (400, 100),
            (100, 300),
        ]
        assert list(made.radii) == judged[-1]

    in_plane(test)


def test_a_namespaces_policy_is_judged_by_all_services_that_have_no_such_section() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        for service in ("cart", "mail", "orders"):
            await register(plane, service, ["a", "b"])
        await traffic.apply(on_v("mail", "1.x"), ANYHOW, BY)
        with pytest.raises(BlastRadius) as refused:
            await traffic.apply(on_v("", "2.x"), ANYHOW, BY)
        assert refused.value.fields["service"] == "cart"
        made = await traffic.apply(on_v("", "2.x"), Wish(force=True), BY)
        assert {radius.service: radius.capacity_after for radius in made.radii} == {"cart": 0, "orders": 0}
        breaker = policy_pb2.CircuitBreaker(forced=policy_pb2.CircuitBreaker.FORCED_OPEN)
        await traffic.delete("default", "", ANYHOW, BY)
        with pytest.raises(BlastRadius):
            await traffic.apply(policy("mail", circuit_breaker=breaker), ANYHOW, BY)
        await traffic.apply(policy("mail", circuit_breaker=breaker), Wish(force=True), BY)
        held = traffic.policies.effective("default", "mail")
        assert held.circuit_breaker is not None
        assert held.circuit_breaker.forced is Forced.OPEN

    in_plane(test)


def test_a_fallback_that_leads_back_is_refused_with_its_path() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        await traffic.apply(falls_back("cart", "basket"), ANYHOW, BY)
        await traffic.apply(falls_back("basket", "shelf"), ANYHOW, BY)
        with pytest.raises(InvalidArgument, match="shelf -> cart -> basket -> shelf"):
            await traffic.apply(falls_back("shelf", "cart"), ANYHOW, BY)
        with pytest.raises(InvalidArgument, match="cart -> basket -> shelf -> cart") as refused:
            await traffic.apply(falls_back("", "cart"), ANYHOW, BY)
        assert refused.value.violations[0].field == "fallback.service"
        with pytest.raises(InvalidArgument, match="mail -> mail"):
            await traffic.apply(falls_back("", "mail"), ANYHOW, BY)
        answers = policy_pb2.Fallback()
        answers.answers.answers.add(method="/a.B/C")
        await traffic.apply(policy("mail", fallback=answers), ANYHOW, BY)
        await traffic.apply(falls_back("", "mail"), ANYHOW, BY)
        with pytest.raises(InvalidArgument, match="mail -> mail"):
            await traffic.delete("default", "mail", ANYHOW, BY)
        both = [traffic.apply(falls_back(*pair), ANYHOW, BY) for pair in (("x", "y"), ("y", "x"))]
        results = await asyncio.gather(*both, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["Changed", "InvalidArgument"]

    in_plane(test)


def test_a_namespaces_policy_must_fit_to_its_services() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        await traffic.apply(policy("", subsets=[policy_pb2.Subset(name="blue")]), ANYHOW, BY)
        await traffic.apply(policy("cart", fallback=policy_pb2.Fallback(subset="blue")), ANYHOW, BY)
        for refusal in (
            traffic.delete("default", "", ANYHOW, BY),
            traffic.apply(policy("", subsets=[policy_pb2.Subset(name="green")]), ANYHOW, BY),
        ):
            with pytest.raises(InvalidArgument, match=r"cart: fallback\.subset: must be one of the subsets"):
                await refusal

    in_plane(test)


def test_the_past_is_listed_shown_and_brought_back() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        revisions = []
        for most in (1, 2, 3):
            made = await traffic.apply(limited("cart", most), ANYHOW, BY._replace(reason=f"step {most}"))
            assert made.entity is not None
            revisions.append(made.entity.revision)
        await traffic.delete("default", "cart", ANYHOW, BY)
        changes, truncated = await traffic.changes("default", "cart", max_changes=0)
        assert [one.policy for one in changes] == [None, *(limited("cart", most) for most in (3, 2, 1))]
        assert [one.record.reason for one in changes] == ["a test", "step 3", "step 2", "step 1"]
        assert not truncated
        assert (await traffic.changes("default", "cart", max_changes=2))[1]
        assert await traffic.at("default", "cart", revisions[1]) == limited("cart", 2)
        assert await traffic.at("default", "cart", revisions[0] - 1) is None
        with pytest.raises(RevisionInFuture):
            await traffic.at("default", "cart", 10_000)
        back = await traffic.roll_back("default", "cart", revisions[1], ANYHOW, BY._replace(reason=""))
        assert back.entity is not None
        assert (back.entity.policy, back.entity.reason) == (limited("cart", 2), f"back to revision {revisions[1]}")
        undone = await traffic.roll_back("default", "cart", 0, ANYHOW, BY)
        assert (undone.entity, undone.changed) == (None, True)
        assert traffic.own("default", "cart") is None
        with pytest.raises(PolicyNotFound):
            await traffic.roll_back("default", "mail", 0, ANYHOW, BY)
        with pytest.raises(PolicyNotFound):
            await traffic.delete("default", "cart", ANYHOW, BY)
        assert traffic.page("") == ([], "")

    in_plane(test)


def test_what_history_does_not_hold_any_more_is_said_to_be_gone() -> None:
    async def test(plane: ControlPlane) -> None:
        traffic = plane.traffic
        for most in (1, 2):
            await traffic.apply(limited("cart", most), ANYHOW, BY)
        entity = traffic.own("default", "cart")
        assert entity is not None
        await plane.control.log.trim(Retention(max_offset=entity.revision), now_ns=0)
        changes, truncated = await traffic.changes("default", "cart", max_changes=0)
        assert ([one.policy for one in changes], truncated) == ([limited("cart", 2)], True)
        with pytest.raises(RevisionCompacted):
            await traffic.at("default", "cart", entity.revision - 1)

    in_plane(test)


def test_a_namespace_has_so_many_policies_and_no_more() -> None:
    async def test(plane: ControlPlane) -> None:
        await plane.traffic.apply(limited("cart", 1), ANYHOW, BY)
        with pytest.raises(LimitExceeded):
            await plane.traffic.apply(limited("mail", 1), ANYHOW, BY)
        await plane.traffic.apply(limited("cart", 2), ANYHOW, BY)
        await plane.traffic.delete("default", "cart", ANYHOW, BY)
        await plane.traffic.apply(limited("mail", 1), ANYHOW, BY)

    in_plane(test, PlaneConfig(traffic=TrafficConfig(policies_per_namespace_max=1)))


def test_a_restart_knows_all_of_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            await plane.traffic.apply(limited("", 1), ANYHOW, BY)
            await plane.traffic.apply(limited("cart", 2), ANYHOW, BY)
            await plane.control.snapshot()
            await plane.traffic.delete("default", "cart", ANYHOW, BY)
            before = plane.traffic.policies.effective("default", "cart")
        async with world.running() as plane:
            assert plane.traffic.policies.effective("default", "cart") == before
            changes, _ = await plane.traffic.changes("default", "cart", max_changes=0)
            assert [one.policy for one in changes] == [None, limited("cart", 2)]

    virtual(main)


def test_the_history_of_large_policies_is_as_much_as_a_message_takes() -> None:
    async def main() -> None:
        world = World()
        async with world.running() as plane:
            for number in range(30):
                large = policy()
                large.fallback.answers.answers.add(method="/a.B/C", response=bytes([number]) * 100_000)
                await plane.traffic.apply(large, Wish(), BY)
            changes, truncated = await plane.traffic.changes("default", "cart", max_changes=30)
            assert truncated
            assert 20 <= len(changes) < 30
            assert changes[0].policy is not None
            assert changes[0].policy.fallback.answers.answers[0].response[0] == 29, "newest first"

    virtual(main)


def test_policies_come_in_pages_of_a_count_and_a_size() -> None:
    async def test(plane: ControlPlane) -> None:
        services = ["", *(f"s-{number}" for number in range(9))]
        for service in services:
            await plane.traffic.apply(limited(service, 5), ANYHOW, BY)
            await plane.traffic.apply(policy(service, "other", limits=Limits_(max_requests=5)), ANYHOW, BY)
        assert _pages(plane, "default", 4) == [services[:4], services[4:8], services[8:]]
        assert [len(page) for page in _pages(plane, "", 7)] == [7, 7, 6]
        assert _pages(plane, "", 100, lambda namespace: namespace == "other") == [services]
        for token in ("default", "/s-1", "default/s-1/x"):
            with pytest.raises(InvalidArgument):
                plane.traffic.page("", page_token=token)
        for service in services:
            large = policy(service)
            large.fallback.answers.answers.add(method="/a.B/C", response=b"x" * 120_000)
            await plane.traffic.apply(large, ANYHOW, BY)
        for number in range(10):
            large.service = f"t-{number}"
            await plane.traffic.apply(large, ANYHOW, BY)
        assert [len(page) for page in _pages(plane, "default", 1_000)] == [18, 2]

    in_plane(test)


def _pages(
    plane: ControlPlane, namespace: str, page_size: int, sees: Callable[[str], bool] = lambda _: True
) -> list[list[str]]:
    found, token = [], None
    while token != "":
        page, token = plane.traffic.page(namespace, page_size=page_size, page_token=token or "", sees=sees)
        found.append([one.service for one in page])
    return found
