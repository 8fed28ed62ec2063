"""calls: who calls whom, and how each version and instance does."""

from __future__ import annotations

from typing import Any

import click

from trunkline.api.v1 import traffic_pb2
from trunkline.api.v1.discovery_pb2 import CallerState
from trunkline.client import Trunkline

from ._context import Settings, as_dict, settings

CLIENT_COLUMNS = ("client", "instance", "breaker", "refused", "ejected")
COUNTS = ("calls", "failed", "success_rate", "p50", "p99")


@click.command(short_help="Who calls whom, and how that goes.")
@click.argument("service", default="")
@settings
def calls(setting: Settings, service: str) -> None:
    """What callers have reported of the last 5 to 10 minutes: who calls whom in the namespace or, with SERVICE, who calls
    it, whom it calls, how each of its versions and instances does, and which clients have ejected one or refuse calls.

    \b
    trunkline calls
    trunkline calls cart
    """

    async def work(trunkline: Trunkline) -> traffic_pb2.GetCallsResponse:
        request = traffic_pb2.GetCallsRequest(namespace=setting.namespace, service=service)
        return await trunkline.call(lambda stubs: stubs.traffic.GetCalls, request, traffic_pb2.GetCallsResponse)

    answer = setting.run(work)
    if setting.as_json:
        setting.show_one(as_dict(answer))
        return
    services = [{"caller": one.caller, "service": one.service, **statistics_of(one.calls)} for one in answer.services]
    setting.show(services, ("caller", "service", *COUNTS), empty="no caller has said which service it is")
    if service:
        versions = [{"version": one.version, **statistics_of(one.calls)} for one in answer.versions]
        setting.show(versions, ("version", *COUNTS), empty="no calls were reported")
        instances = [{"instance": one.id, **statistics_of(one.calls)} for one in answer.instances]
        setting.show(instances, ("instance", *COUNTS), empty="")
        clients = [state_of(one) for one in answer.clients]
        setting.show(clients, CLIENT_COLUMNS, empty="")
    if answer.truncated:
        click.echo("there are more than these", err=True)


def state_of(said: traffic_pb2.ClientState) -> dict[str, Any]:
    """What a client makes of a service or an instance."""
    state = said.state
    breaker = CallerState.Breaker.Name(state.breaker).removeprefix("BREAKER_").lower() if state.breaker else None
    return {
        "client": said.client,
        "instance": state.instance_id or "all",
        "breaker": breaker,
        "refused": f"{state.rejection_percent} %" if state.rejection_percent else None,
        "ejected": state.ejected or None,
    }


def statistics_of(calls: traffic_pb2.CallStatistics) -> dict[str, Any]:
    """Calls as a line of a table has them; nothing when there were none."""
    if not calls.calls:
        return {}
    return {
        "calls": calls.calls,
        "failed": calls.failed,
        "success_rate": f"{100 * (1 - calls.failed / calls.calls):.2f}%",
        **{
            name: f"{getattr(calls, name).ToMicroseconds() / 1e3:.3g} ms"
            for name in ("p50", "p99")
            if calls.HasField(name)
        },
    }
