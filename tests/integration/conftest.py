"""Tests of a module that says EACH_TRANSPORT = True run on the event loop of each transport, and so on each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    """See pytest-asyncio."""
    if getattr(item.module, "EACH_TRANSPORT", False):  # type: ignore[attr-defined]
        return {"native": uvloop.new_event_loop, "grpcio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
