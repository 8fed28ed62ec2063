"""Selectors, one condition at a time."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.core.errors import InvalidArgument
from trunkline.core.model import Instance, Locality, RegisteredInstance, Status
from trunkline.core.selector import VERDICTS_MAX, Selector


def registered(status: Status = Status.SERVING, **declared: Any) -> RegisteredInstance:
    return RegisteredInstance(
        instance=Instance(namespace="shop", service="orders", id="o-1", endpoints=(), **declared),
        status=status,
        status_reason="declared",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=0,
    )


def test_an_empty_selector_takes_what_may_be_called() -> None:
    taken = {status for status in Status if Selector().matches(registered(status))}
    assert taken == {Status.SERVING, Status.DEGRADED, Status.STALE}


def test_statuses() -> None:
    drained = Selector(statuses=frozenset({Status.DRAINING}))
    assert drained.matches(registered(Status.DRAINING))
    assert not drained.matches(registered(Status.SERVING))


def test_versions() -> None:
    assert Selector(version="^1.2").matches(registered(version="1.4.0"))
    assert not Selector(version="^1.2").matches(registered(version="2.0.0"))


@pytest.mark.parametrize("version", ["", "not semantic"])
def test_an_instance_without_a_version_lies_in_no_range(version: str) -> None:
    assert Selector().matches(registered(version=version))
    assert not Selector(version="*").matches(registered(version=version))


def test_labels() -> None:
    wanted = Selector(labels={"tier": "gold", "canary": ""})
    assert wanted.matches(registered(labels={"tier": "gold", "canary": "", "more": "x"}))
    assert not wanted.matches(registered(labels={"tier": "gold"}))
    assert not wanted.matches(registered(labels={"tier": "silver", "canary": ""}))


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Locality(), True),
        (Locality(region="eu"), True),
        (Locality(zone="eu-1"), True),
        (Locality("eu", "eu-1", "a"), True),
        (Locality("us"), False),
        (Locality("eu", "eu-2"), False),
        (Locality(sub_zone="b"), False),
    ],
)
def test_localities(wanted: Locality, taken: bool) -> None:
    assert Selector(locality=wanted).matches(registered(locality=Locality("eu", "eu-1", "a"))) is taken


def test_a_bad_range_names_field_and_value() -> None:
    with pytest.raises(InvalidArgument) as caught:
        Selector(version="one")
    (violation,) = caught.value.violations
    assert (violation.field, violation.value) == ("selector.version", "'one'")


def test_the_canonical_text_tells_meanings_apart() -> None:
    same = Selector(version="^1.2", labels={"a": "1", "b": "2"}, statuses=frozenset())
    other = Selector(
        version=">=1.2.0 <2.0.0-0",
        labels={"b": "2", "a": "1"},
        statuses=frozenset({Status.STALE, Status.SERVING, Status.DEGRADED}),
    )
    assert same.canonical() == other.canonical()
    different = [
        Selector(),
        Selector(version="*"),
        Selector(labels={"a": "b"}),
        Selector(labels={"a": "b,c"}),
        Selector(labels={"a": "b", "c": ""}),
        Selector(locality=Locality("a")),
        Selector(locality=Locality("", "a")),
        Selector(statuses=frozenset({Status.SERVING})),
    ]
    assert len({selector.canonical() for selector in different}) == len(different)


def test_a_selector_is_a_value() -> None:
    labels = {"a": "1"}
    selector = Selector(version="^1", labels=labels)
    labels["a"] = "2"
    assert selector == Selector(version="^1", labels={"a": "1"})
    assert hash(selector) == hash(Selector(version="^1", labels={"a": "1"}))
    selector.matches(registered(version="1.0.0", labels={"a": "1"}))
    assert selector == Selector(version="^1", labels={"a": "1"})


def test_remembered_verdicts_are_bounded() -> None:
    selector = Selector(version="^1")
    for patch in range(3 * VERDICTS_MAX):
        assert selector.matches(registered(version=f"1.0.{patch}"))
    assert len(selector._verdicts) <= VERDICTS_MAX
