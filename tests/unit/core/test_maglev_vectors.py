"""The Maglev table against facts from Envoy's own tests.

Source of every expected number: https://github.com/envoyproxy/envoy,
test/extensions/load_balancing_policies/maglev/maglev_lb_test.cc, in the test of the like name. Where that weighs
localities, the same proportions are given here as weights.
"""

from __future__ import annotations

import pytest

from trunkline.core.maglev import TABLE_SIZE_MAX, Maglev


def ports(*numbers: int) -> list[str]:
    return [f"127.0.0.1:{number}" for number in numbers]


def test_basic() -> None:
    maglev = Maglev(ports(90, 91, 92, 93, 94, 95), [1] * 6, table_size=7)
    assert maglev.table() == [2, 4, 0, 1, 5, 0, 3]
    assert [maglev.locate(hash) for hash in range(21)] == [2, 4, 0, 1, 5, 0, 3] * 3


def test_basic_with_hostname() -> None:
    assert Maglev(["90", "91", "92", "93", "94", "95"], [1] * 6, table_size=7).table() == [2, 5, 0, 3, 4, 1, 0]


def test_basic_stability() -> None:
    hosts = ports(90, 91, 92, 93, 94, 95)
    table = Maglev(list(reversed(hosts)), [1] * 6, table_size=7).table()
    assert [5 - index for index in table] == [2, 4, 0, 1, 5, 0, 3]


@pytest.mark.parametrize("weight", [1, 7])  # SingleHost, WeightedSingleHost
def test_single_host(weight: int) -> None:
    assert Maglev(ports(90), [weight], table_size=17).table() == [0] * 17


def test_weighted() -> None:
    table = Maglev(ports(90, 91), [1, 2], table_size=17).table()
    assert table == [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]


def test_locality_weighted_same() -> None:
    table = Maglev(ports(90, 91), [1, 1], table_size=17).table()
    assert table == [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]


def test_locality_weighted_different() -> None:
    table = Maglev(ports(90, 91, 92), [8, 2, 0], table_size=17).table()
    assert table == [1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]


def test_locality_weighted_lopsided() -> None:
    table = Maglev(ports(*range(1024)), [127 * 1023] + [1] * 1023).table()
    assert all(table.count(index) == 1 for index in range(1, 1024))
    assert table.count(0) == 65_537 - 1023


def test_default_table_size() -> None:
    assert Maglev(ports(90), [1]).size == 65_537


@pytest.mark.parametrize("size", [8, 0, 1, -7, 65_536, TABLE_SIZE_MAX + 6])
def test_no_prime_number_or_too_large(size: int) -> None:
    with pytest.raises(ValueError, match="table_size is a prime"):
        Maglev(ports(90), [1], table_size=size)


def test_the_largest_table() -> None:
    # The bound is a prime, as Envoy's is; a table of it is full.
    maglev = Maglev(ports(90, 91, 92), [1, 1, 1], table_size=TABLE_SIZE_MAX)
    assert maglev.size == TABLE_SIZE_MAX
    assert {maglev.locate(hash) for hash in range(0, TABLE_SIZE_MAX, 99)} == {0, 1, 2}


def test_more_hosts_than_places() -> None:
    table = Maglev(ports(*range(100)), [1] * 100, table_size=7).table()
    assert len(set(table)) == 7


def test_a_host_listed_twice_takes_turns_for_both() -> None:
    table = Maglev(ports(90, 91, 90), [1, 1, 1], table_size=101).table()
    assert sorted(table.count(index) for index in range(3)) == [33, 34, 34]


@pytest.mark.parametrize(
    ("hosts", "weights"),
    [([], []), (["a:1"], []), (["a:1"], [1, 1]), ([""], [1]), (["a:1"], [0]), (["a:1"], [-1]), (["a:1"], [2**31])],
)
def test_refusals(hosts: list[str], weights: list[int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Maglev(hosts, weights)
