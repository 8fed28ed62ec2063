"""Calls that are answered without waiting."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def answered(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it comes to; AssertionError when it waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    coroutine.close()
    raise AssertionError("it waits")
