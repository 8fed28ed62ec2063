"""What the collector does not look at goes all the same."""

from __future__ import annotations

import gc
import weakref

from trunkline.core.collector import unseen
from trunkline.core.model import Declared, Instance, Status
from trunkline.core.records import Change, Draft, Version
from trunkline.core.registered import Entry, Lease, RegisteredInstance


class Held:
    """With a reference and a weak one."""

    def __init__(self, of: object) -> None:
        self.of = of


def test_what_is_unseen_is_not_looked_at_and_is_freed_with_its_last_reference() -> None:
    inner = unseen(Held(b"bytes"))
    outer = unseen(Held(inner))
    assert not gc.is_tracked(inner)
    assert not gc.is_tracked(outer)
    gone = weakref.ref(inner)
    del inner
    gc.collect()
    assert gone() is not None, "the one holds the other"
    del outer
    assert gone() is None


def test_a_cycle_through_it_would_stay() -> None:
    """Why nothing that refers back may be left out."""
    one, other = unseen(Held(None)), unseen(Held(None))
    one.of, other.of = other, one
    gone = weakref.ref(one)
    del one, other
    gc.collect()
    found = gone()
    assert found is not None
    found.of = None


def test_the_values_that_are_kept_by_the_hundred_thousand_are_not_looked_at() -> None:
    instance = Instance(namespace="shop", service="orders", id="o1", endpoints=(), declared=Declared.SERVING)
    registered = RegisteredInstance(instance, Status.SERVING, "declared", 1, 2, 3)
    lease = Lease(7, bytes(32), 10_000, 9)
    draft = Change("a.b", "a/k", b"body").draft("id", Version(1, 2, 3), None, "me", "", "")
    for value in (registered, lease, Entry(registered, lease), draft, draft.record(4, 5), Draft("a", b"")):
        assert not gc.is_tracked(value), value
