"""Messages and services of the interoperability tests, compiled from protos/ when this is imported."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

PROTOS = Path(__file__).parent / "protos"
TEST_SERVICE = "grpc.testing.TestService"
ORCA_SERVICE = "xds.service.orca.v3.OpenRcaService"


def _compiled() -> DescriptorPool:
    """A pool of their own, so that they meet no other package that has these names."""
    pool = DescriptorPool()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors"
        includes = (f"-I{PROTOS}", f"-I{files('grpc_tools') / '_proto'}")
        names = [path.name for path in sorted(PROTOS.glob("*.proto"))]
        code = protoc.main(["protoc", *includes, "--include_imports", f"--descriptor_set_out={output}", *names])
        assert code == 0, f"protoc ended with {code}"
        for file in FileDescriptorSet.FromString(output.read_bytes()).file:
            pool.Add(file)
    return pool


_POOL = _compiled()


def _message(name: str) -> Any:
    return GetMessageClass(_POOL.FindMessageTypeByName(name))


Empty = _message("grpc.testing.Empty")
Payload = _message("grpc.testing.Payload")
EchoStatus = _message("grpc.testing.EchoStatus")
SimpleRequest = _message("grpc.testing.SimpleRequest")
SimpleResponse = _message("grpc.testing.SimpleResponse")
StreamingInputCallRequest = _message("grpc.testing.StreamingInputCallRequest")
StreamingInputCallResponse = _message("grpc.testing.StreamingInputCallResponse")
StreamingOutputCallRequest = _message("grpc.testing.StreamingOutputCallRequest")
StreamingOutputCallResponse = _message("grpc.testing.StreamingOutputCallResponse")
OrcaLoadReport = _message("xds.data.orca.v3.OrcaLoadReport")


def service_handler(service: str, methods: Mapping[str, Any]) -> grpc.GenericRpcHandler:
    """What serves these methods of a service; the kind of each call is the contract's."""
    handlers = {}
    for method in _POOL.FindServiceByName(service).methods:
        kind = tuple("stream" if many else "unary" for many in (method.client_streaming, method.server_streaming))
        handler_of = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        handlers[method.name] = handler_of(
            methods[method.name],
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service, handlers)


def untyped(channel: Any, path: str) -> Any:
    """A method whose request and response are bytes."""
    return channel.unary_unary(path)


def stub(channel: Any, method: str) -> Any:
    """A method of the test service on a channel of grpc or grpc.aio."""
    found = _POOL.FindServiceByName(TEST_SERVICE).methods_by_name[method]
    kind = tuple("stream" if many else "unary" for many in (found.client_streaming, found.server_streaming))
    return getattr(channel, f"{kind[0]}_{kind[1]}")(
        f"/{TEST_SERVICE}/{method}",
        request_serializer=GetMessageClass(found.input_type).SerializeToString,
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )
