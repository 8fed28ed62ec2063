"""Policies through the SDK: changed, watched, kept in the cache folder."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trunkline.api.v1 import policy_pb2
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.client import Reset, Updated
from trunkline.client._view_state import ViewState
from trunkline.client.testing import FakeControlPlane, FakeTrunkline
from trunkline.core.errors import InvalidArgument, PolicyNotFound, RevisionMismatch
from trunkline.core.policy import PLAIN, Algorithm

CART = "service: cart\nlimits: {max_requests: 7}\n"
DEFAULT = "timeout: 2s\n"


class Folder:
    """A cache folder in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def load(self, name: str) -> bytes | None:
        return self.files.get(name)

    async def save(self, name: str, data: bytes) -> None:
        self.files[name] = data


async def test_a_policy_that_was_deleted_right_behind_its_change_has_the_answers_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with FakeTrunkline() as trunkline:
        monkeypatch.setattr(trunkline.plane._traffic, "_kept", lambda _: None)
        made = await trunkline.apply_policy(CART)
        assert (made.changed, made.policy, made.revision) == (True, None, trunkline.plane.revision)


async def test_what_is_applied_is_read_listed_and_taken_back() -> None:
    async with FakeTrunkline() as trunkline:
        made = await trunkline.apply_policy(CART, reason="so many", expected_revision=0)
        assert made.policy is not None
        assert (made.changed, made.revision, made.policy.reason) == (True, trunkline.plane.revision, "so many")
        assert not (await trunkline.apply_policy(CART)).changed
        with pytest.raises(RevisionMismatch):
            await trunkline.apply_policy(CART, expected_revision=0)
        with pytest.raises(InvalidArgument, match=r"retry\.max_attempts"):
            await trunkline.apply_policy("service: cart\nretry: {max_attempts: 1}")
        await trunkline.apply_policy(DEFAULT)
        state = await trunkline.get_policy("cart")
        assert state.own is not None
        assert not state.own.policy.HasField("timeout")
        assert (state.policy.limits.max_requests, state.policy.timeout_ns) == (7, 2_000_000_000)
        assert [one.policy.service for one in await trunkline.list_policies()] == ["", "cart"]
        await trunkline.delete_policy("cart", reason="enough")
        assert (await trunkline.get_policy("cart")).own is None
        with pytest.raises(PolicyNotFound):
            await trunkline.delete_policy("cart")
        back = await trunkline.roll_back_policy("cart")
        assert back.policy is not None
        assert back.policy.policy.limits.max_requests == 7
        assert [one.reason for one in await trunkline.policy_changes("cart", max_changes=2)] == ["", "enough"]


async def test_a_view_knows_its_policy_and_tells_of_changes() -> None:
    async with FakeTrunkline() as trunkline:
        view, every = await trunkline.watch("cart"), await trunkline.watch()
        assert (view.policy, view.policies) == (PLAIN, {})
        changes = view.changes()
        assert isinstance(await anext(changes), Reset)
        revision = trunkline.plane.set_policy(CART)
        assert await trunkline.wait_until_applied(revision, limit_s=5) == ()
        assert (view.policy.limits.max_requests, view.policy.revision) == (7, revision)
        change = await anext(changes)
        assert change == Updated(revision, policies={"cart": view.policy})
        trunkline.plane.set_policy(DEFAULT)
        await trunkline.wait_until_applied(trunkline.plane.revision, limit_s=5)
        assert (view.policy.timeout_ns, view.policy.limits.max_requests) == (2_000_000_000, 7)
        assert (every.policy.timeout_ns, every.policy_of("nobody").limits.max_requests) == (2_000_000_000, 0)
        assert every.policy_of("cart") == view.policy
        late = await trunkline.watch("mail")
        assert late.policy.timeout_ns == 2_000_000_000


async def test_what_came_while_a_client_was_away_is_told_when_it_is_back() -> None:
    plane = FakeControlPlane()
    async with plane.connect() as trunkline:
        view = await trunkline.watch("cart")
        plane.go_away()
        plane.set_policy(CART)
        plane.come_back()
        async with asyncio.timeout(10):
            async for _ in view.changes():
                if view.policy.limits.max_requests == 7:
                    break


async def test_a_process_that_starts_without_a_control_plane_knows_the_policies_of_the_one_before() -> None:
    plane, folder = FakeControlPlane(), Folder()
    plane.set_policy(CART)
    plane.set_policy(DEFAULT)
    async with plane.connect(cache=folder) as trunkline:
        await trunkline.watch("cart")
        before = (await trunkline.watch()).policies
    plane.go_away()
    async with plane.connect(cache=folder) as trunkline:
        view, every = await trunkline.watch("cart", timeout_s=0.2), await trunkline.watch(timeout_s=0.2)
        assert view.from_cache
        assert (view.policy.limits.max_requests, view.policy.timeout_ns) == (7, 2_000_000_000)
        assert every.policies == before
        assert sorted(before) == ["", "cart"]


def told(kind: int, revision: int, *, complete: bool = False, **policies: Any) -> WatchEvent:
    effective = [
        policy_pb2.EffectivePolicy(service=name, policy=policy, revision=revision) for name, policy in policies.items()
    ]
    return WatchEvent(kind=WatchEvent.Kind.ValueType(kind), revision=revision, complete=complete, policies=effective)


def limited(most: int) -> policy_pb2.TrafficPolicy:
    return policy_pb2.TrafficPolicy(limits=policy_pb2.Limits(max_requests=most))


def test_a_snapshots_policies_are_swapped_in_with_it() -> None:
    state = ViewState()
    state.apply(told(WatchEvent.KIND_SNAPSHOT, 1, complete=True, cart=limited(1), mail=limited(2)))
    assert state.apply(told(WatchEvent.KIND_SNAPSHOT, 2, cart=limited(3))) is None
    assert {name: one.limits.max_requests for name, one in state.policies.items()} == {"cart": 1, "mail": 2}
    state.apply(told(WatchEvent.KIND_SNAPSHOT, 2, complete=True, shop=limited(4)))
    assert {name: one.limits.max_requests for name, one in state.policies.items()} == {"cart": 3, "shop": 4}
    state.apply(told(WatchEvent.KIND_SNAPSHOT, 3, cart=limited(5)))
    state.disconnected()
    state.apply(told(WatchEvent.KIND_SNAPSHOT, 4, complete=True))
    assert state.policies == {}


def test_a_policy_that_this_program_does_not_understand_leaves_the_one_before() -> None:
    state = ViewState()
    state.apply(told(WatchEvent.KIND_SNAPSHOT, 1, complete=True, cart=limited(1)))
    newer = policy_pb2.TrafficPolicy()
    newer.load_balancing.algorithm = 99  # type: ignore[assignment]
    change = state.apply(told(WatchEvent.KIND_CHANGES, 2, cart=newer, mail=limited(2)))
    assert isinstance(change, Updated)
    assert list(change.policies) == ["mail"]
    assert state.policies["cart"].limits.max_requests == 1
    assert state.policies["cart"].load_balancing.algorithm is Algorithm.ROUND_ROBIN
