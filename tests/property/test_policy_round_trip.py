"""What is written of a policy is read as the same policy, as YAML and as JSON."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from reference.policies import policy_of_seed
from trunkline.api.policies import merged, policy_from, sections_of
from trunkline.api.policy_text import policy_to_dict, read_policies, write_policies
from trunkline.api.rules import checker
from trunkline.api.v1.policy_pb2 import TrafficPolicy

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_as_the_same(seed: int) -> None:
    one, other = policy_of_seed(seed), policy_of_seed(seed + 1)
    for policy in (one, other):
        policy.namespace = policy.namespace or "shop"
        checker(TrafficPolicy.DESCRIPTOR)(policy)
    assert read_policies(write_policies(one, other)) == [one, other]
    assert read_policies(json.dumps(policy_to_dict(one))) == [one]
    assert read_policies(json.dumps(policy_to_dict(one), ensure_ascii=False, indent=2)) == [one]


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_each_section_is_from_the_one_or_from_the_other(seed: int) -> None:
    own, default = policy_of_seed(seed), policy_of_seed(seed + 1)
    result = merged(own, default)
    assert sections_of(result) == sections_of(own) | sections_of(default)
    for name in sections_of(result):
        source = own if name in sections_of(own) else default
        assert getattr(result, name) == getattr(source, name)
    assert policy_from(result, 7).revision == 7
