"""Which cases each client runs: what tests are parametrized by, and what docs/transport-conformance.md lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TRANSPORTS = ("native", "grpcio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What one client runs. Cases and what is left out have a name and a line of words each."""

    name: str
    title: str
    about: str
    cases: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    excused: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(transport, case) that is not run, and why."""
    transports: tuple[str, ...] = TRANSPORTS
    is_secure: bool = False
    """Over TLS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bounds of the bytes of one case on the wire, requests up and responses down."""

    up_min: int = 0
    up_max: int = 1 << 40
    down_min: int = 0
    down_max: int = 1 << 40


GO_CASES = {
    "empty_unary": "a request and a response of no bytes",
    "large_unary": "271,828 bytes up, 314,159 down",
    "client_streaming": "four requests, one answer with the sum of their sizes",
    "server_streaming": "one request, four responses of given sizes",
    "ping_pong": "four requests, each answered before the next",
    "empty_stream": "a stream without a message in either direction",
    "timeout_on_sleeping_server": "DEADLINE_EXCEEDED after a millisecond",
    "cancel_after_begin": "cancelled before the first request",
    "cancel_after_first_response": "cancelled in the middle of a stream",
    "status_code_and_message": "a status of the server's choice, unary and streaming",
    "special_status_message": "a message with Unicode, tabs and line ends",
    "custom_metadata": "initial and trailing metadata, text and binary, unary and streaming",
    "unimplemented_method": "UNIMPLEMENTED for a method that the service lacks",
    "unimplemented_service": "UNIMPLEMENTED for a service that the server lacks",
    "pick_first_unary": "a hundred calls, all to one server",
    "rpc_soak": "large calls in a row on one connection",
    "channel_soak": "large calls in a row, each on a connection of its own",
    "orca_per_rpc": "a load report in the trailing metadata",
    "orca_oob": "load reports on a stream of their own, beside the calls",
}

_GOOGLE = "needs Google's credentials"
GO_LEFT_OUT = {
    "compute_engine_creds": _GOOGLE,
    "service_account_creds": _GOOGLE,
    "jwt_token_creds": _GOOGLE,
    "per_rpc_creds": _GOOGLE,
    "oauth2_auth_token": _GOOGLE,
    "google_default_credentials": _GOOGLE,
    "compute_engine_channel_credentials": _GOOGLE,
}

CASES = {
    "empty_unary": "a request and a response of no bytes",
    "large_unary": "271,828 bytes up, 314,159 down",
    "client_streaming": "four requests, one answer with the sum of their sizes",
    "server_streaming": "one request, four responses of given sizes",
    "ping_pong": "four requests, each answered before the next",
    "empty_stream": "a stream without a message in either direction",
    "empty_messages": "messages of no bytes in a stream",
    "half_duplex": "four requests, four responses once the client has closed its side",
    "timeout_on_sleeping_server": "DEADLINE_EXCEEDED at the deadline, not when the server would have answered",
    "cancel_after_begin": "cancelled before the first request",
    "cancel_after_first_response": "cancelled in the middle of a stream",
    "status_code_and_message": "every status code that there is, unary and streaming",
    "special_status_message": "a message with Unicode, percent signs, tabs and line ends",
    "early_status": "the server ends a stream that the client has not closed",
    "custom_metadata": "initial and trailing metadata, unary and streaming",
    "binary_metadata": "every byte there is, several values of one name in order",
    "unimplemented_method": "UNIMPLEMENTED for a method that the service lacks",
    "unimplemented_service": "UNIMPLEMENTED for a service that the server lacks",
    "client_compressed_gzip": "requests compressed with gzip; their bytes are counted",
    "client_compressed_deflate": "requests compressed with deflate; their bytes are counted",
    "server_compressed_gzip": "a response compressed with gzip; its bytes are counted",
    "server_compressed_deflate": "a response compressed with deflate; its bytes are counted",
    "server_compressed_streaming": "one compressed message and one that is not, in one stream; their bytes are counted",
    "large_messages": "6 MiB up and down, many times the flow-control window",
    "slow_reader": "8 MiB that the client takes slowly",
    "request_over_limit": "RESOURCE_EXHAUSTED for a message over the server's limit; the connection stays",
    "inflated_over_limit": "RESOURCE_EXHAUSTED for a short message that is over the limit once it is decompressed",
    "response_over_limit": "RESOURCE_EXHAUSTED at the client for a message over its own limit",
    "metadata_over_limit": "RESOURCE_EXHAUSTED for metadata over the server's limit; the connection stays",
    "keepalive": "pings on a silent stream are answered and tolerated",
    "many_at_once": "forty calls at once on one connection",
    "more_than_at_once": "more calls at once than the server lets one connection have: the rest wait their turn",
}

TRAFFIC = {
    "large_unary": Traffic(up_min=271_828, down_min=314_159),
    "client_compressed_gzip": Traffic(up_max=30_000),
    "client_compressed_deflate": Traffic(up_max=30_000),
    "server_compressed_gzip": Traffic(down_max=30_000),
    "server_compressed_deflate": Traffic(down_max=30_000),
    "server_compressed_streaming": Traffic(down_min=92_653, down_max=92_653 + 20_000),
    "inflated_over_limit": Traffic(up_max=1 << 20),
}

_REFUSED = {
    ("grpcio", "more_than_at_once"): (
        "gRPC's core counts a call that its client has seen the end of a moment longer, and refuses the one that takes its turn"
    )
}

GRPC_GO = Suite(
    name="grpc-go",
    title="grpc-go",
    about=(
        "The client that gRPC's own implementations are tested with (`google.golang.org/grpc/interop/client`), unchanged. "
        "It has no cases for compression."
    ),
    cases=GO_CASES,
    left_out=GO_LEFT_OUT,
)
GRPC_GO_TLS = Suite(
    name="grpc-go-tls",
    title="grpc-go over TLS",
    about="The same client and cases, over TLS with a certificate of an authority that it is told of.",
    cases=GO_CASES,
    left_out=GO_LEFT_OUT,
    is_secure=True,
)
GRPC_JS = Suite(
    name="grpc-js",
    title="grpc-js",
    about="A program on `@grpc/grpc-js`, gRPC for Node, whose HTTP/2 is Node's own.",
    cases=CASES,
    excused=_REFUSED,
)
GRPCIO_SYNC = Suite(
    name="grpcio-sync",
    title="grpcio with threads",
    about="`grpc.insecure_channel`: gRPC's C core, which Python, C++, C#, PHP and Ruby share.",
    cases=CASES,
    excused=_REFUSED,
)
GRPCIO_ASYNC = Suite(
    name="grpcio-asyncio",
    title="grpcio with asyncio",
    about="`grpc.aio.insecure_channel`, on the same core.",
    cases=CASES | {"graceful_stop": "a server that stops ends the open call in peace, and takes no further one"},
    excused=_REFUSED,
)
