"""What an instance is taken for: derived from what is known of it, never stored."""

from __future__ import annotations

from trunkline.core.model import Declared, Override, Status
from trunkline.core.registered import Lease

DECLARED = "declared"
LEASE_LAPSED = "lease lapsed"

SERVES = frozenset({Status.SERVING, Status.DEGRADED})
"""Statuses of an instance that takes calls by right, not for want of a better one."""


def status_of(
    declared: Declared, lease: Lease, probe_failure: str | None, override: Override | None
) -> tuple[Status, str]:
    """Status and what it rests on; the first that applies."""
    if override is not None:
        return override.status, f"override: {override.reason}" if override.reason else "override"
    if lease.lapsed_revision is not None:
        return Status.STALE, LEASE_LAPSED
    if declared is Declared.DRAINING:
        return Status.DRAINING, DECLARED
    if declared is Declared.STARTING:
        return Status.STARTING, DECLARED
    if probe_failure is not None:
        return Status.NOT_SERVING, f"probe: {probe_failure}"
    if declared is Declared.DEGRADED:
        return Status.DEGRADED, DECLARED
    return Status.SERVING, DECLARED
