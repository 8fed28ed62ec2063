"""AdminService on grpc.aio: status, history, tokens, and the operator's word on a pause."""

from __future__ import annotations

from typing import Any

import grpc

from trunkline.api import convert
from trunkline.api.v1 import admin_pb2, common_pb2
from trunkline.api.v1.admin_pb2_grpc import AdminServiceServicer
from trunkline.server.chain.call import deadline_ns_of, principal_of
from trunkline.server.discovery.history import History
from trunkline.server.journal.control.requests import request_id_by
from trunkline.server.journal.control.sequencer import Origin
from trunkline.server.registry.changes import RegistryChange
from trunkline.server.security.tokens import Tokens
from trunkline.server.security.tokens_fold import token_to

from .operations import Operations

CHANGES_DEFAULT = 1_000

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(AdminServiceServicer):
    """Thin: converts, asks the part that knows, converts back."""

    def __init__(self, operations: Operations, tokens: Tokens, history: History) -> None:
        self._operations = operations
        self._tokens = tokens
        self._history = history
        self._header = operations.discovery.headers.message

    async def Status(self, request: admin_pb2.StatusRequest, context: Context) -> admin_pb2.StatusResponse:
        return self._operations.status()

    async def History(self, request: admin_pb2.HistoryRequest, context: Context) -> admin_pb2.HistoryResponse:
        past = await self._history.at(
            request.namespace,
            request.service,
            revision=request.revision if request.HasField("revision") else None,
            time_ns=convert.time_ns_from(request.time) if request.HasField("time") else None,
            since_revision=request.since_revision if request.HasField("since_revision") else None,
            max_changes=request.max_changes or CHANGES_DEFAULT,
        )
        return admin_pb2.HistoryResponse(
            header=self._header(),
            at_revision=past.revision,
            at_time=convert.time_ns_to(past.time_ns),
            instances=map(convert.registered_to, past.instances),
            changes=map(_change_to, past.changes),
            truncated=past.truncated,
        )

    async def EndExpiryPause(
        self, request: admin_pb2.EndExpiryPauseRequest, context: Context
    ) -> admin_pb2.EndExpiryPauseResponse:
        author = principal_of(context).name
        origin = Origin(author=author, reason=request.reason, request_id=request_id_by(author, request))
        expired = await self._operations.registry.end_expiry_pause(request.namespace, origin)
        return admin_pb2.EndExpiryPauseResponse(header=self._header(), expired=expired)

    async def CreateToken(
        self, request: admin_pb2.CreateTokenRequest, context: Context
    ) -> admin_pb2.CreateTokenResponse:
        created = await self._tokens.create(principal_of(context), request, deadline_ns=deadline_ns_of(context))
        return admin_pb2.CreateTokenResponse(
            header=self._header(), token=token_to(created.token), secret=created.secret
        )

    async def ListTokens(self, request: admin_pb2.ListTokensRequest, context: Context) -> admin_pb2.ListTokensResponse:
        visible = self._tokens.visible_to(principal_of(context))
        return admin_pb2.ListTokensResponse(header=self._header(), tokens=map(token_to, visible))

    async def RevokeToken(
        self, request: admin_pb2.RevokeTokenRequest, context: Context
    ) -> admin_pb2.RevokeTokenResponse:
        written = await self._tokens.revoke(principal_of(context), request, deadline_ns=deadline_ns_of(context))
        return admin_pb2.RevokeTokenResponse(header=self._header(), changed=not written.repeated)


def _change_to(change: RegistryChange) -> admin_pb2.RegistryChange:
    return admin_pb2.RegistryChange(
        revision=change.revision,
        time=convert.time_ns_to(change.time_ns),
        instance=common_pb2.InstanceRef(service=change.service, id=change.instance_id),
        what=change.what,
        author=change.author,
        reason=change.reason,
    )
