"""The table as its documentation tells it: round by round, host by host."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from reference.weights import check_hosts

TABLE_SIZE_MAX = 5_000_011


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % divisor for divisor in range(2, int(n**0.5) + 1))


class Maglev:
    """See trunkline.core.maglev.Maglev."""

    def __init__(self, hosts: Sequence[str], weights: Sequence[int], *, table_size: int = 65_537) -> None:
        check_hosts(hosts, weights)
        if table_size > TABLE_SIZE_MAX or not _is_prime(table_size):
            raise ValueError("size")
        keys = [host.encode() for host in hosts]
        shares = [weight / sum(weights) for weight in weights]
        order = sorted((index for index in range(len(hosts)) if weights[index]), key=lambda index: (keys[index], index))
        offset = [xxhash.xxh64_intdigest(key) % table_size for key in keys]
        skip = [xxhash.xxh64_intdigest(key, 1) % (table_size - 1) + 1 for key in keys]
        step = [0] * len(hosts)
        target = [0.0] * len(hosts)
        table = [-1] * table_size
        free = table_size
        iteration = 0
        while free:
            iteration += 1
            for index in order:
                if not free or iteration * shares[index] < target[index]:
                    continue
                target[index] += max(shares)
                while table[place := (offset[index] + step[index] * skip[index]) % table_size] >= 0:
                    step[index] += 1
                table[place] = index
                free -= 1
        self._table = table

    def locate(self, hash: int) -> int:
        """The host at the hash modulo the table's size."""
        if not 0 <= hash < 2**64:
            raise OverflowError(hash)
        return self._table[hash % len(self._table)]

    def locate_key(self, key: bytes) -> int:
        """The owner of the key's hash."""
        return self.locate(xxhash.xxh64_intdigest(key))

    def table(self) -> list[int]:
        """All places."""
        return self._table

    @property
    def size(self) -> int:
        """How many places there are."""
        return len(self._table)
