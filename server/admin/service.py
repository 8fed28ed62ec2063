"""AdminService on grpc.aio: status, history, tokens, and the operator's word on a pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2
from trunkline.api.v1.admin_pb2_grpc import AdminServiceServicer
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.journal.sequencer import Origin

from .about import About

if TYPE_CHECKING:
    from trunkline.server.plane import ControlPlane

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(AdminServiceServicer):
    """Thin: converts, asks the part that knows, converts back."""

    def __init__(self, plane: ControlPlane, about: About) -> None:
        self._plane = plane
        self._about = about

    async def Status(self, request: admin_pb2.StatusRequest, context: Context) -> admin_pb2.StatusResponse:
        return self._plane.status()
