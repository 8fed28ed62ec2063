"""The fold of policies: what snapshots keep of it, and what it forgets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reference.registry_facts import Journal
from trunkline.api.v1.policy_pb2 import TrafficPolicy
from trunkline.server.traffic import fold as fold_module
from trunkline.server.traffic.fold import CHANGES_KEPT, PoliciesFold

STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["a", "a-b", "b"]), st.sampled_from(["", "x", "x-y", "z"])), max_size=40
)


def folded(steps: list[tuple[bool, str, str]], *, gone_max: int = 1_000) -> PoliciesFold:
    fold, journal = PoliciesFold(gone_max=gone_max), Journal()
    for applied, namespace, service in steps:
        if applied:
            policy = TrafficPolicy(namespace=namespace, service=service)
            policy.limits.max_requests = journal.offset
            fold.apply(journal.policy_applied(policy, destinations_changed=journal.offset % 3 == 0))
        else:
            fold.apply(journal.policy_deleted(service, namespace))
    return fold


def everything(fold: PoliciesFold) -> object:
    return (
        fold.floor,
        len(fold),
        {name: (dict(fold.of_namespace(name)), fold.last_change(name)) for name in fold.namespaces()},
    )


@given(steps=STEPS, later=STEPS, gone_max=st.sampled_from([0, 1, 3, 1_000]))
def test_a_snapshot_leads_to_the_same_state(
    steps: list[tuple[bool, str, str]], later: list[tuple[bool, str, str]], gone_max: int
) -> None:
    fold, again = folded(steps, gone_max=gone_max), PoliciesFold(gone_max=gone_max)
    pieces = list(fold.dump())
    again.load(fold.version, pieces)
    assert everything(again) == everything(fold)
    assert list(again.dump()) == pieces
    journal = Journal(offset=1_000)
    for _, namespace, service in later:
        record = journal.policy_deleted(service, namespace)
        for one in (fold, again):
            one.apply(record)
    assert everything(again) == everything(fold), "what went first is forgotten first"


def test_so_many_changes_are_known_and_that_there_were_more() -> None:
    fold, again = folded([(True, "a", "x")] * (CHANGES_KEPT + 3)), PoliciesFold()
    known = fold.known("a", "x")
    assert known is not None
    assert (len(known.revisions), known.revisions[-1], known.truncated) == (CHANGES_KEPT, CHANGES_KEPT + 3, True)
    again.load(fold.version, list(fold.dump()))
    assert again.known("a", "x") == known


def test_the_last_change_of_destinations_is_known_until_the_policy_is_deleted() -> None:
    fold, journal = PoliciesFold(), Journal()
    policy = TrafficPolicy(namespace="a", service="x")
    seen: list[int] = []
    for changed in (False, True, False, None, False, True):
        if changed is None:
            fold.apply(journal.policy_deleted("x", "a"))
        else:
            fold.apply(journal.policy_applied(policy, destinations_changed=changed))
        known = fold.known("a", "x")
        assert known is not None
        seen.append(known.destinations_revision)
    assert seen == [0, 2, 2, 0, 0, 6]


def test_pieces_are_bounded() -> None:
    fold = folded([(True, "a", f"s-{n}") for n in range(120)])
    assert len(list(fold.dump())) == 3 == -(-120 // fold_module.PIECE_POLICIES)
    assert list(PoliciesFold().dump()) == []


def test_deleting_what_is_not_there_is_nothing() -> None:
    assert everything(folded([(False, "a", "x")])) == everything(PoliciesFold())


def test_what_was_deleted_first_is_forgotten_first_after_a_restart_too() -> None:
    names = ("z", "a", "m")
    fold = folded([(True, "ns", name) for name in (*names, "b")] + [(False, "ns", name) for name in names], gone_max=3)
    again = PoliciesFold(gone_max=3)
    again.load(fold.version, list(fold.dump()))
    record = Journal(offset=1_000).policy_deleted("b", "ns")
    for one in (fold, again):
        one.apply(record)
        assert sorted(one.of_namespace("ns")) == ["a", "b", "m"]
        assert one.floor == 5
