"""Who may do what: roles, namespaces, topics, and the cover relation of filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.errors import PermissionDenied, Unauthenticated
from trunkline.core.fanout import matches
from trunkline.server.security.principal import (
    ANY,
    EVERY_TOPIC,
    EVERYTHING,
    NOBODY,
    ROLE_NEEDED,
    Principal,
    Resource,
    Role,
    Verb,
    Via,
    authorize,
    covers,
)


def principal(
    role: Role | None, *, namespaces: frozenset[str] = frozenset(), topics: tuple[str, ...] = ()
) -> Principal:
    return Principal(name="token/x", role=role, namespaces=namespaces, topic_filters=topics, via=Via.TOKEN)


def allowed(who: Principal, verb: Verb, resource: Resource = ANY) -> bool:
    try:
        authorize(who, verb, resource)
    except PermissionDenied:
        return False
    return True


MAY = {
    Role.READER: {Verb.PROBE, Verb.READ},
    Role.SERVICE: {Verb.PROBE, Verb.READ, Verb.REGISTER, Verb.REPORT, Verb.PUBLISH, Verb.CONSUME},
    Role.ADMIN: set(Verb),
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", Verb)
def test_roles(role: Role, verb: Verb) -> None:
    assert allowed(principal(role), verb) is (verb in MAY[role])


def test_every_verb_needs_something() -> None:
    assert ROLE_NEEDED.keys() == set(Verb)


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.PROBE])
def test_nobody_may_nothing(verb: Verb) -> None:
    with pytest.raises(Unauthenticated):
        authorize(NOBODY, verb, ANY)


def test_anybody_may_probe() -> None:
    authorize(NOBODY, Verb.PROBE, ANY)


def test_namespaces_limit() -> None:
    scoped = principal(Role.ADMIN, namespaces=frozenset({"shop"}))
    assert allowed(scoped, Verb.ADMINISTER, Resource("shop"))
    assert not allowed(scoped, Verb.ADMINISTER, Resource("other"))
    assert not allowed(scoped, Verb.ADMINISTER, EVERYTHING)
    assert allowed(scoped, Verb.READ, ANY)
    assert allowed(principal(Role.ADMIN), Verb.ADMINISTER, EVERYTHING)
    assert scoped.sees("shop")
    assert not scoped.sees("other")


def test_topics_limit() -> None:
    scoped = principal(Role.SERVICE, topics=("orders.>", "audit"))
    assert allowed(scoped, Verb.PUBLISH, Resource("shop", ["orders.placed", "audit"]))
    assert not allowed(scoped, Verb.PUBLISH, Resource("shop", ["orders.placed", "mail.sent"]))
    assert not allowed(scoped, Verb.READ, Resource("shop", EVERY_TOPIC))
    assert allowed(scoped, Verb.READ, Resource("shop", ["orders.*.done"]))


def test_a_refusal_says_who_what_and_why() -> None:
    with pytest.raises(PermissionDenied) as refused:
        authorize(principal(Role.READER), Verb.REGISTER, Resource("shop"))
    assert str(refused.value) == "token/x (reader) may not register in namespace 'shop': it needs the role service"
    assert refused.value.fields == {"principal": "token/x", "verb": "REGISTER"}


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a.b", False),
        ("a.b", "a", False),
        ("*", "a", True),
        ("*", "*", True),
        ("*", ">", False),
        ("a.*", "a.>", False),
        (">", "a.b.c", True),
        (">", ">", True),
        ("a.>", "a", False),
        ("a.>", "a.>", True),
        ("a.>", "a.*.b", True),
        ("a.>", ">", False),
        ("a.>", "*.b", False),
        ("a.b", "a.*", False),
        ("*.b", "a.b", True),
    ],
)
def test_covers(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected


words = st.sampled_from(["a", "b", "*"])
filters = st.builds(
    lambda middle, end: ".".join([*middle, end]), st.lists(words, max_size=3), st.sampled_from(["a", "b", "*", ">"])
)
topics = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5).map(".".join)


@given(filters, filters, topics)
def test_what_a_covered_filter_takes_its_cover_takes(wide: str, narrow: str, topic: str) -> None:
    if covers(wide, narrow) and matches(narrow, topic):
        assert matches(wide, topic)


@given(filters, topics)
def test_a_topic_is_covered_exactly_when_it_matches(wide: str, topic: str) -> None:
    assert covers(wide, topic) == matches(wide, topic)
