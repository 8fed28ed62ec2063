"""Resolve, ListServices and ReportOutcomes."""

from __future__ import annotations

import pytest

from reference.registry_facts import Journal, instance
from trunkline.api import convert
from trunkline.api.v1 import common_pb2, discovery_pb2
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Declared, Status
from trunkline.core.records import Record
from trunkline.server.discovery.catalogue import ServiceSummary
from trunkline.server.discovery.discovery import Discovery, DiscoveryConfig
from trunkline.server.registry.changes import RegistryStep
from trunkline.server.registry.fold import RegistryFold

JOURNAL_ID = "0123456789abcdef" * 2


class Registry:
    """A fold and discovery on it."""

    def __init__(self, config: DiscoveryConfig | None = None) -> None:
        self.fold = RegistryFold(collecting=True)
        self.journal = Journal()
        self.discovery = Discovery(
            self.fold, journal_id=JOURNAL_ID, incarnation=3, clock=ManualClock(), rng=Rng(1), config=config
        )

    def apply(self, record: Record) -> None:
        self.fold.apply(record)
        changes, self.fold.changes = tuple(self.fold.changes), []
        self.discovery.apply(RegistryStep(revision=record.offset, time_ns=record.time_ns, changes=changes))

    def resolve(self, service: str = "orders", **selector: str) -> discovery_pb2.ResolveResponse:
        request = discovery_pb2.ResolveRequest(namespace="default", service=service)
        if selector:
            request.selector.labels.update(selector)
        return discovery_pb2.ResolveResponse.FromString(self.discovery.resolve(request))


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.apply(made.journal.registered(instance("b", labels={"tier": "gold"}, version="1.0.0"), lease_id=1))
    made.apply(made.journal.registered(instance("a", version="2.0.0"), lease_id=2))
    return made


def test_resolve_tells_the_instances_and_where_it_comes_from(registry: Registry) -> None:
    answer = registry.resolve()
    assert (answer.header.journal_id, answer.header.incarnation, answer.header.revision) == (JOURNAL_ID, 3, 2)
    assert [registered.instance.id for registered in answer.instances] == ["a", "b"]
    state = registry.fold.service("default", "orders")
    assert state is not None
    assert [convert.registered_from(registered) for registered in answer.instances] == [
        state.instances["a"],
        state.instances["b"],
    ]


def test_resolve_follows_every_change(registry: Registry) -> None:
    for _ in range(2):  # the second answer is the kept one
        assert [registered.instance.id for registered in registry.resolve(tier="gold").instances] == ["b"]
    registry.apply(registry.journal.declared("instance/default/orders/b", Declared.DRAINING))
    assert list(registry.resolve(tier="gold").instances) == []
    assert [registered.instance.id for registered in registry.resolve().instances] == ["a"]
    registry.apply(registry.journal.declared("instance/default/orders/b", Declared.DEGRADED))
    assert registry.resolve().instances[1].status == common_pb2.INSTANCE_STATUS_DEGRADED
    assert registry.resolve().header.revision == 4


def test_kept_answers_say_the_present_revision(registry: Registry) -> None:
    registry.resolve()
    registry.apply(registry.journal.registered(instance("x", "other"), lease_id=9))
    assert registry.resolve().header.revision == 3


def test_a_service_that_nobody_registered_has_no_instances(registry: Registry) -> None:
    assert list(registry.resolve("nowhere").instances) == []


def test_what_is_kept_of_answers_is_bounded() -> None:
    registry = Registry(DiscoveryConfig(answers_max=3, encoded_instances_max=2))
    for number in range(6):
        registry.apply(registry.journal.registered(instance("a", f"s{number}"), lease_id=number + 1))
    for _ in range(2):
        for number in range(6):
            assert len(registry.resolve(f"s{number}").instances) == 1
            kept = [n for n in range(6) if registry.discovery.keeps_answer("default", f"s{n}")]
            assert 1 <= len(kept) <= 3


def test_a_selector_that_is_none_is_refused(registry: Registry) -> None:
    request = discovery_pb2.ResolveRequest(namespace="default", service="orders")
    request.selector.version = "not a range"
    with pytest.raises(InvalidArgument, match="version"):
        registry.discovery.resolve(request)


async def test_services_are_listed_in_pages(registry: Registry) -> None:
    for number, (namespace, service) in enumerate([("default", "cart"), ("east", "cart"), ("west", "mail")], start=3):
        registry.apply(registry.journal.registered(instance("a", service, namespace), lease_id=number))
    registry.apply(registry.journal.removed("instance/west/mail/a"))
    registry.apply(registry.journal.lapsed("instance/default/orders/a", 2))
    seen: list[ServiceSummary] = []
    token = ""
    while True:
        page = await registry.discovery.catalogue.page("", page_size=2, page_token=token, sees=lambda _: True)
        seen += page.services
        token = page.next_page_token
        if not token:
            break
    assert [(one.namespace, one.service) for one in seen] == [
        ("default", "cart"),
        ("default", "orders"),
        ("east", "cart"),
    ]
    assert seen[1].counts == {Status.SERVING: 1, Status.STALE: 1}
    assert seen[1].versions == ["1.0.0", "2.0.0"]
    page = await registry.discovery.catalogue.page("", page_size=9, page_token="", sees=lambda name: name == "east")
    assert [(one.namespace, one.service) for one in page.services] == [("east", "cart")]
    page = await registry.discovery.catalogue.page("default", page_size=9, page_token="", sees=lambda _: True)
    assert len(page.services) == 2


@pytest.mark.parametrize("token", ["x", "/", "a/", "/b", "a/b/c"])
async def test_a_page_token_that_is_none_is_refused(registry: Registry, token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        await registry.discovery.catalogue.page("", page_size=1, page_token=token, sees=lambda _: True)


def test_metrics_are_plain_numbers_with_their_bounds(registry: Registry) -> None:
    registry.resolve()
    metrics = registry.discovery.metrics()
    assert metrics["encoded_instances"] == 2
    assert metrics["resolve_answer_bytes"] > 100
    bounds = [name for name in metrics if name.endswith("_max") and name.removesuffix("_max") in metrics]
    assert len(bounds) == 11
    assert all(metrics[name.removesuffix("_max")] <= metrics[name] for name in bounds)
