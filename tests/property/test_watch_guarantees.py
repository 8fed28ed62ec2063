"""Whatever happens to the registry, the streams and the clients: a watch shows what was true at its revision.

Random histories against the shipped fold and hub; the clients are `reference.watch`, the judges are `guarantees`.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reference.watch_walk import WatchWalk


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_watches_keep_their_promises(seed: int) -> None:
    WatchWalk(seed).walk(150)
