"""What a connection does with releases."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.api.v1 import releases_pb2

from . import _releases
from ._connected import Connected
from ._releases import Release, ReleaseGate, ReleaseStep

_Action = releases_pb2.SteerReleaseRequest


class ReleaseCalls(Connected):
    """See Trunkline."""

    async def start_release(
        self, service: str, version: str, *, baseline: str = "", steps: Sequence[ReleaseStep | int] = (),
        gate: ReleaseGate | None = None, sticky_on_header: str = "", sticky_on_caller: bool = False, reason: str = "",
        namespace: str | None = None,
    ) -> Release:  # fmt: skip
        """Give `version`, a range, a growing share of a service's calls, step by step (5, 25, 50 and 100 percent if none are
        said; a number is a step of a minute), each as long as its calls do as well as those of the version that serves now.

        `baseline` is that one, a range; empty: what the last release proved good, or all other versions. Calls with the
        same value of a metadata key, or of one caller, stay with one version as long as the shares stay. One release of a
        service at a time: another is ReleaseRunning. InvalidArgument when nothing of a range can be called.
        """
        self._check_open()
        wanted = _releases.release_to(
            service, version, namespace=namespace or self._namespace, baseline=baseline, steps=steps, gate=gate,
            sticky_on_header=sticky_on_header, sticky_on_caller=sticky_on_caller,
        )  # fmt: skip
        return await _releases.start(self._link, self._edge, wanted, reason)

    async def get_release(self, service: str, *, namespace: str | None = None) -> Release:
        """A service's last release, with what its gate says now. ReleaseNotFound."""
        self._check_open()
        return await _releases.get(self._link, namespace=namespace or self._namespace, service=service)

    async def releases(self, *, namespace: str | None = None) -> tuple[Release, ...]:
        """The last release of each service of the namespace, by service."""
        self._check_open()
        return await _releases.list_all(self._link, namespace=namespace or self._namespace)

    async def promote_release(self, service: str, *, reason: str = "", namespace: str | None = None) -> Release:
        """Take the next step now, whatever the gate says; behind the last one the release is completed.

        ReleaseNotFound, ReleaseEnded.
        """
        return await self._steer(_Action.ACTION_PROMOTE, service, reason, namespace)

    async def pause_release(self, service: str, *, reason: str = "", namespace: str | None = None) -> Release:
        """Hold it where it is. ReleaseNotFound, ReleaseEnded."""
        return await self._steer(_Action.ACTION_PAUSE, service, reason, namespace)

    async def resume_release(self, service: str, *, reason: str = "", namespace: str | None = None) -> Release:
        """Go on after a pause: the step begins anew. ReleaseNotFound, ReleaseEnded."""
        return await self._steer(_Action.ACTION_RESUME, service, reason, namespace)

    async def abort_release(self, service: str, *, reason: str = "", namespace: str | None = None) -> Release:
        """Give the baseline all calls; after the end, too. ReleaseNotFound, ReleaseBaselineEmpty."""
        return await self._steer(_Action.ACTION_ABORT, service, reason, namespace)

    async def _steer(
        self,
        action: releases_pb2.SteerReleaseRequest.Action.ValueType,
        service: str,
        reason: str,
        namespace: str | None,
    ) -> Release:
        self._check_open()
        return await _releases.steer(
            self._link, self._edge, action, namespace=namespace or self._namespace, service=service, reason=reason
        )
