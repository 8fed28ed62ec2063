"""Whether calls are answered yet, or still."""

from __future__ import annotations

from trunkline.core.errors import NotReady


class Readiness:
    """Closed until the folds have caught up, and again while stopping. A closed one refuses with UNAVAILABLE."""

    def __init__(self, why_not: str = "the control plane has not caught up with its journal") -> None:
        self.is_open = False
        self._why_not = why_not

    def open(self) -> None:
        """Answer calls from now on."""
        self.is_open = True

    def close(self, why_not: str) -> None:
        """Refuse calls from now on."""
        self.is_open = False
        self._why_not = why_not

    def refusal(self) -> NotReady:
        """What a call is refused with while closed."""
        return NotReady(self._why_not)
