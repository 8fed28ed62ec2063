"""Services that every gRPC server should have: health for whoever restarts it, reflection for grpcurl and friends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha.reflection import aio as reflection_aio


class StandardServices:
    """grpc.health.v1 and grpc.reflection.v1alpha. Health says NOT_SERVING until `set_serving`."""

    def __init__(self) -> None:
        self._health = health_aio.HealthServicer()

    async def register(self, registrar: Any, services: Iterable[str]) -> None:
        """Register both, after everything else: `services` are the names of what is served."""
        await self.set_serving(False)
        names = [*services, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registrar)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection_aio.ReflectionServicer(names), registrar)

    async def set_serving(self, serving: bool, services: Iterable[str] = ()) -> None:
        """Tell those who ask, and those who watch, for the server as a whole and for each of `services`."""
        answers = health_pb2.HealthCheckResponse
        status = answers.SERVING if serving else answers.NOT_SERVING
        for name in ("", *services):
            await self._health.set(name, status)
