"""Discovery: one view of the registry for those who resolve, pick, watch and wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from trunkline.api import convert
from trunkline.api.v1 import discovery_pb2
from trunkline.core.clock import Clock, Rng

from ..registry.changes import RegistryStep
from ..traffic.caller_states import CallerStates
from ..traffic.outcomes import Outcomes, OutcomesConfig
from . import wire
from .catalogue import Catalogue
from .evaluation import Policies
from .header import ResponseHeaders
from .picker import PickerConfig, Pickers
from .policy_view import PolicyView
from .registry_view import RegistryView
from .resolver import Resolver
from .tokens import TokenMaker
from .watch_config import WatchConfig
from .watch_loop import WatchLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryConfig:
    """Limits of discovery."""

    watches: WatchConfig = field(default_factory=WatchConfig)
    pickers: PickerConfig = field(default_factory=PickerConfig)
    answers_max: int = 10_000
    """Encoded answers to Resolve that are kept."""
    answer_bytes_max: int = 64 * 1024 * 1024
    """Their size in all."""
    encoded_instances_max: int = 200_000
    """Instances whose encoding is kept."""
    outcomes_max: int = 10_000
    """Versions of services whose calls are counted."""
    outcome_instances_max: int = 20_000
    """Instances whose calls are counted."""
    outcome_edges_max: int = 10_000
    """Pairs of a service that calls and one that is called, whose calls are counted."""


class KnownPolicies(Policies, PolicyView, Protocol):
    """What picks and watches need of traffic policies."""


class Discovery:
    """Reads one fold. Told of its steps by `apply`; `watches.run` and `pickers.work.run` must run."""

    def __init__(
        self,
        registry: RegistryView,
        *,
        journal_id: str,
        incarnation: int,
        clock: Clock,
        rng: Rng,
        config: DiscoveryConfig | None = None,
        policies: KnownPolicies | None = None,
    ) -> None:
        config = config or DiscoveryConfig()
        encoded = wire.EncodedInstances(instances_max=config.encoded_instances_max)
        self._config = config
        self._encoded = encoded
        self.clock = clock
        self.watches = WatchLoop(
            registry,
            TokenMaker(journal_id, incarnation),
            clock=clock,
            rng=rng,
            encoded=encoded,
            config=config.watches,
            policies=policies,
        )
        self.headers = ResponseHeaders(journal_id, incarnation, lambda: self.watches.hub.revision)
        self.pickers = Pickers(registry, rng, config.pickers, clock=clock, policies=policies)
        self.catalogue = Catalogue(registry)
        self.outcomes = Outcomes(
            OutcomesConfig(
                outcomes_max=config.outcomes_max,
                instances_max=config.outcome_instances_max,
                edges_max=config.outcome_edges_max,
            ),
            registry,
        )
        self.caller_states = CallerStates()
        self._resolver = Resolver(
            registry, encoded, answers_max=config.answers_max, answer_bytes_max=config.answer_bytes_max
        )

    def begin(self, revision: int) -> None:
        """The registry is loaded and stands at this revision. Before anybody asks."""
        self.watches.hub.begin(revision)

    def apply(self, step: RegistryStep) -> None:
        """The registry has taken a step."""
        self._resolver.apply(step.changes)
        self.pickers.apply(step.changes)
        self.watches.hub.apply(step)

    def keeps_answer(self, namespace: str, service: str) -> bool:
        """Whether the next Resolve of all of a service is answered from what is encoded already."""
        return self._resolver.kept(namespace, service, b"") is not None

    def metrics(self) -> dict[str, float]:
        """Counts and bounds by name; those that only grow end in `_total`."""
        hub, config = self.watches.hub, self._config
        counts = hub.counts
        return {
            "watches": counts.watches,
            "watches_max": config.watches.watches_max,
            "watch_connections": counts.connections,
            "watch_connections_max": config.watches.connections_max,
            "watch_waits": hub.waits,
            "watch_waits_max": config.watches.waits_max,
            "watch_backlog_steps": hub.backlog_steps,
            "watch_backlog_steps_max": config.watches.backlog_steps_max,
            "watch_backlogs_dropped_total": counts.backlogs_dropped,
            "watch_events_total": counts.events,
            "watch_bookmarks_total": counts.bookmarks,
            "watch_snapshots_total": counts.snapshots,
            "watches_left_behind_total": counts.left_behind,
            "watches_refused_total": counts.ended,
            "watch_staleness_seconds_max": counts.staleness_ns_max / 1e9,
            "encoded_instances": len(self._encoded),
            "encoded_instances_max": config.encoded_instances_max,
            "resolve_answer_bytes": self._resolver.bytes,
            "resolve_answer_bytes_max": config.answer_bytes_max,
            "picker_entries": self.pickers.entries,
            "picker_entries_max": config.pickers.entries_max,
            **self.outcomes.metrics(),
            **self.caller_states.metrics(),
        }

    def resolve(self, request: discovery_pb2.ResolveRequest) -> bytes:
        """An encoded ResolveResponse. InvalidArgument when the selector's version range is none."""
        key = request.selector.SerializeToString() if request.HasField("selector") else b""
        body = self._resolver.kept(request.namespace, request.service, key)
        if body is None:
            selector = convert.selector_from(request.selector)
            body = self._resolver.resolve(request.namespace, request.service, key, selector)
        return self.headers.encoded() + body
