"""A channel's outlier detection over its candidates."""

from __future__ import annotations

from reference.registry_facts import instance
from trunkline.client._balancer import Candidate
from trunkline.client._outliers import Outliers
from trunkline.client._tasks import Tasks
from trunkline.core.clock import ManualClock, Rng
from trunkline.core.in_flight import InFlight
from trunkline.core.model import Endpoint, RegisteredInstance, Status
from trunkline.core.policy import OutlierDetection


def _candidate(calls: InFlight, name: str, address: str) -> Candidate:
    made = instance(name, endpoints=(Endpoint(address, 80),))
    registered = RegisteredInstance(
        instance=made,
        status=Status.SERVING,
        status_reason="",
        created_revision=1,
        modified_revision=1,
        registered_at_ns=0,
    )
    return Candidate(registered, made.endpoints[0], calls)


async def test_slashes_in_ids_and_addresses_make_no_two_hosts_one() -> None:
    clock = ManualClock()
    tasks, calls = Tasks(), InFlight(clock)
    outliers = Outliers(Rng(1), clock, tasks, lambda: None)
    outliers.adopt(OutlierDetection(consecutive_5xx=1, max_ejection_percent=100))
    first, second = _candidate(calls, "a", "b/c"), _candidate(calls, "a/b", "c")
    outliers.set_hosts([first, second])
    outliers.record(first, 14, local_origin=False)
    assert outliers.why(first)
    assert not outliers.why(second)
    await tasks.close()
