"""Bounds of traffic policies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficConfig:
    """Bounds of traffic policies."""

    policies_per_namespace_max: int = 10_000
    """Policies of one namespace; further ones are refused."""
