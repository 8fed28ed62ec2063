"""Rows of results, and what is asked of them."""

from __future__ import annotations

import pytest

from bench.row import Row, holds, judged, missed, row, spread_of

KEYS = [
    "benchmark",
    "metric",
    "value",
    "unit",
    "repetitions",
    "spread",
    "peer",
    "peer_value",
    "ratio",
    "gate",
    "goal",
    "met",
]


def measured(**changed: object) -> Row:
    """10 s, a fifth of the peer's 50 s."""
    return row("restart", "to ready", [9, 10, 12], "s", **{"peer": "x", "peer_values": [50], **changed})  # type: ignore[arg-type]


def test_a_row_has_exactly_these_keys_in_this_order() -> None:
    assert list(measured()) == KEYS


def test_value_is_the_median_and_spread_the_range_of_few() -> None:
    made = measured()
    assert (made["value"], made["repetitions"], made["spread"]) == (10, 3, 3)
    assert (made["peer_value"], made["ratio"]) == (50, 0.2)


def test_spread_of_many_is_the_interquartile_range() -> None:
    assert spread_of([1, 2, 3, 4, 5, 6, 7, 1_000]) == 4.5
    assert spread_of([7]) == 0


def test_the_worst_takes_the_place_of_the_median_and_says_so() -> None:
    made = measured(worst=max, gate="value <= 11 s")
    assert (made["value"], made["metric"], made["met"]) == (12, "to ready, worst of 3", False)


@pytest.mark.parametrize(
    ("gate", "met"),
    [
        ("value <= 10 s", True),
        ("value <= 9.9 s", False),
        ("value >= 10 s", True),
        ("value >= 11 s", False),
        ("ratio <= 0.2", True),
        ("ratio >= 15", False),
        (None, None),
    ],
)
def test_met_follows_from_the_gate(gate: str | None, met: bool | None) -> None:
    assert measured(gate=gate)["met"] is met


def test_a_goal_decides_nothing() -> None:
    made = measured(goal="value <= 1 s")
    assert made["met"] is None
    assert not missed([made])


def test_without_its_peer_a_row_has_no_invented_numbers_and_no_gate_on_the_ratio() -> None:
    made = measured(peer_values=[], gate="ratio >= 15", goal="ratio >= 25")
    assert (made["peer_value"], made["ratio"], made["gate"], made["met"]) == (None, None, None, None)
    assert holds("ratio >= 25", made) is None


def test_a_gate_on_the_value_stands_without_a_peer() -> None:
    assert measured(peer=None, peer_values=[], gate="value <= 5 s")["met"] is False


@pytest.mark.parametrize("condition", ["value < 5 s", "<= 5", "ratio >= 15 s", "value <= 5 ms", "value <= five", ""])
def test_a_condition_that_cannot_be_judged_is_refused(condition: str) -> None:
    with pytest.raises(ValueError, match=r"not a condition|is asked of"):
        measured(gate=condition)


def test_what_a_module_claims_is_judged_again() -> None:
    claimed = measured(gate="value <= 5 s")
    claimed["met"] = True
    assert judged(claimed)["met"] is False


@pytest.mark.parametrize("key", KEYS)
def test_a_row_without_a_key_is_none(key: str) -> None:
    made = {name: value for name, value in measured().items() if name != key}
    with pytest.raises(ValueError, match="a row has the keys"):
        judged(made)


def test_a_row_with_another_key_is_none() -> None:
    with pytest.raises(ValueError, match="a row has the keys"):
        judged({**measured(), "host": "x"})


def test_small_values_keep_their_digits_and_large_ones_are_whole() -> None:
    made = row("publish", "rate", [558_446.7], "events/s")
    assert made["value"] == 558_447
    assert row("pick", "one", [0.012345], "ns")["value"] == pytest.approx(0.01234, abs=1e-5)
