"""What a control plane says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Facts that do not change while it runs."""

    version: str
    transport: str = ""
    data_folder: str = ""
    """Empty when nothing is kept on disk."""
    started_ns: int
    """Monotonic."""
