"""Parts of a service are what each destination takes, and are found by comparing versions, not instances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.candidates import candidate
from trunkline.core.model import RegisteredInstance, Status
from trunkline.core.parts import Parts
from trunkline.core.policy import Destination, Subset
from trunkline.core.ranges import takes
from trunkline.core.selector import Selector

SUBSETS = (
    Subset(name="gold", labels={"tier": "gold"}),
    Subset(name="new-gold", version="^2", labels={"tier": "gold", "zone": "a"}),
    Subset(name="old", version="^1"),
)
instances = st.lists(
    st.builds(
        lambda version, tier, zone, status: (
            candidate("i", version=version, labels={**tier, **zone}, status=status).instance
        ),
        st.sampled_from(("", "1.0.0", "1.5.0", "2.0.0", "2.1.0-rc.1", "no version")),
        st.sampled_from(({}, {"tier": "gold"}, {"tier": "tin"})),
        st.sampled_from(({}, {"zone": "a"}, {"zone": ""})),
        st.sampled_from(Status),
    ),
    max_size=12,
)
destinations = st.one_of(
    st.none(),
    st.builds(lambda version: Destination(version=version), st.sampled_from(("^1", "^2", "*", ">=1 <2.1"))),
    st.builds(lambda subset: Destination(subset=subset), st.sampled_from(("gold", "new-gold", "old", "gone"))),
)


def lies_in(registered: RegisteredInstance, destination: Destination | None) -> bool:
    if destination is None:
        return True
    version, labels = destination.version, {}
    if destination.subset:
        subset = next((one for one in SUBSETS if one.name == destination.subset), None)
        if subset is None:
            return False
        version, labels = subset.version, dict(subset.labels)
    instance = registered.instance
    return (not version or takes(version, instance.version)) and labels.items() <= instance.labels.items()


@given(instances, destinations)
def test_parts_are_what_a_destination_takes_one_by_one(
    found: list[RegisteredInstance], destination: Destination | None
) -> None:
    parts = Parts(found, SUBSETS)
    wanted = [place for place, registered in enumerate(found) if lies_in(registered, destination)]
    assert parts.places_of(destination) == wanted
    assert [lies_in(one, destination) for one in found] == [parts.takes(destination)(one) for one in found]
    assert sorted(place for group in parts.groups for place in group) == list(range(len(found)))


def test_a_destination_is_compared_with_versions_and_not_with_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    matches = Selector.matches

    def counting(selector: Selector, registered: RegisteredInstance) -> bool:
        nonlocal looks
        looks += 1
        return matches(selector, registered)

    monkeypatch.setattr(Selector, "matches", counting)
    parts = Parts([candidate("i", version=f"1.{number % 5}.0").instance for number in range(200)], SUBSETS)
    assert [len(parts.places_of(Destination(version=f"1.{minor}"))) for minor in range(5)] == [40] * 5
    assert looks == 25
