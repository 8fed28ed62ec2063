"""What a user may set about a connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from trunkline.core.errors import InvalidArgument

from ._backoff import BackoffOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM bytes for TLS and, with `certificate` and `key`, mutual TLS."""

    ca: bytes | None = None
    """Certificates that the server's must be signed by; None trusts gRPC's own list."""
    certificate: bytes | None = None
    """The client's certificate chain."""
    key: bytes | None = field(default=None, repr=False)
    """The private key of `certificate`."""
    server_name: str | None = None
    """The name in the server's certificate, when it is not the host that is dialled."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InvalidArgument.of("tls", "certificate and key go together", "one of them")

    @classmethod
    def from_files(
        cls,
        *,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str | None = None,
    ) -> Tls:
        """Read PEM files. OSError when one cannot be read."""
        return cls(
            ca=Path(ca).read_bytes() if ca else None,
            certificate=Path(certificate).read_bytes() if certificate else None,
            key=Path(key).read_bytes() if key else None,
            server_name=server_name,
        )


ReportOutcomes: TypeAlias = Literal["managed", "always", "never"]
"""Of which services the control plane is told what became of calls: those that it has a policy or a release for, of all,
or of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The numbers of a connection; the defaults suit nearly everybody. Times in seconds."""

    timeout_s: float = 10.0
    """Deadline of a call to the control plane, repeats included, unless the call says another."""
    backoff: BackoffOptions = field(default_factory=BackoffOptions)
    """Waits between attempts to reach the control plane."""
    stale_after_s: float = 15.0
    """A view that hears nothing for so long says Stale; three of the server's bookmarks."""
    silent_after_s: float = 20.0
    """A watch or subscription stream on which nothing comes for so long is taken for dead and opened again."""
    keepalive_time_s: float = 10.0
    """A silent connection to the control plane is asked whether it is there; the server takes it from 5 s on."""
    keepalive_timeout_s: float = 5.0
    """One that does not answer within this is given up."""
    watch_credit: int = 16
    """Watch events that may stand unacknowledged before the server coalesces."""
    changes_max: int = 256
    """Changes that wait for a slow reader of `View.changes()`; then they become one Reset."""
    cache_interval_s: float = 1.0
    """A view is written to the cache folder at most so often."""
    drain_limit_s: float = 10.0
    """How long leaving waits for watchers to acknowledge that an instance drains."""
    requests_max: int = 1_000
    """Requests over events that may wait for their replies; one more is LimitExceeded."""
    max_message_bytes: int = 16 * 1024 * 1024
    """Of one gRPC message received from the control plane."""
    report_outcomes: ReportOutcomes = "managed"
    """Whether channels tell the control plane what became of calls; see ReportOutcomes."""
    report_interval_s: float = 5.0
    """Between two reports, at least."""

    def __post_init__(self) -> None:
        times = ("timeout_s", "stale_after_s", "silent_after_s", "cache_interval_s", "report_interval_s")
        for name in (*times, "keepalive_time_s", "keepalive_timeout_s"):
            if getattr(self, name) <= 0:
                raise InvalidArgument.of(f"options.{name}", "more than 0", getattr(self, name))
        for name in ("watch_credit", "changes_max", "requests_max", "max_message_bytes"):
            if getattr(self, name) < 1:
                raise InvalidArgument.of(f"options.{name}", "at least 1", getattr(self, name))
        if self.report_outcomes not in get_args(ReportOutcomes):
            rule = f"one of {', '.join(get_args(ReportOutcomes))}"
            raise InvalidArgument.of("options.report_outcomes", rule, self.report_outcomes)
        if self.drain_limit_s < 0:
            raise InvalidArgument.of("options.drain_limit_s", "at least 0", self.drain_limit_s)
