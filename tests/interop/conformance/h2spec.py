"""What h2spec checks, by section, and where the native transport goes by newer text than h2spec.

h2spec's sections are those of RFC 7540 and 7541. RFC 9113 has taken the place of RFC 7540.
"""

from __future__ import annotations

from interop.conformance.cases import Suite

SECTIONS = {
    "generic/1": ("Starting HTTP/2", 1),
    "generic/2": ("Streams and Multiplexing", 5),
    "generic/3.1": ("DATA", 3),
    "generic/3.2": ("HEADERS", 3),
    "generic/3.3": ("PRIORITY", 5),
    "generic/3.4": ("RST_STREAM", 1),
    "generic/3.5": ("SETTINGS", 1),
    "generic/3.7": ("PING", 1),
    "generic/3.8": ("GOAWAY", 1),
    "generic/3.9": ("WINDOW_UPDATE", 2),
    "generic/3.10": ("CONTINUATION", 2),
    "generic/4": ("HTTP Message Exchanges", 4),
    "generic/5": ("HPACK", 15),
    "http2/3.5": ("HTTP/2 Connection Preface", 2),
    "http2/4.1": ("Frame Format", 3),
    "http2/4.2": ("Frame Size", 3),
    "http2/4.3": ("Header Compression and Decompression", 3),
    "http2/5.1": ("Stream States", 13),
    "http2/5.1.1": ("Stream Identifiers", 2),
    "http2/5.1.2": ("Stream Concurrency", 1),
    "http2/5.3.1": ("Stream Dependencies", 2),
    "http2/5.4.1": ("Connection Error Handling", 2),
    "http2/5.5": ("Extending HTTP/2", 2),
    "http2/6.1": ("DATA", 3),
    "http2/6.2": ("HEADERS", 4),
    "http2/6.3": ("PRIORITY", 2),
    "http2/6.4": ("RST_STREAM", 3),
    "http2/6.5": ("SETTINGS", 3),
    "http2/6.5.2": ("Defined SETTINGS Parameters", 5),
    "http2/6.5.3": ("Settings Synchronization", 2),
    "http2/6.7": ("PING", 4),
    "http2/6.8": ("GOAWAY", 1),
    "http2/6.9": ("WINDOW_UPDATE", 3),
    "http2/6.9.1": ("The Flow-Control Window", 3),
    "http2/6.9.2": ("Initial Flow-Control Window Size", 3),
    "http2/6.10": ("CONTINUATION", 6),
    "http2/7": ("Error Codes", 2),
    "http2/8.1": ("HTTP Request/Response Exchange", 1),
    "http2/8.1.2": ("HTTP Header Fields", 1),
    "http2/8.1.2.1": ("Pseudo-Header Fields", 4),
    "http2/8.1.2.2": ("Connection-Specific Header Fields", 2),
    "http2/8.1.2.3": ("Request Pseudo-Header Fields", 7),
    "http2/8.1.2.6": ("Malformed Requests and Responses", 2),
    "http2/8.2": ("Server Push", 1),
    "hpack/2.3.3": ("Index Address Space", 1),
    "hpack/4.2": ("Maximum Table Size", 1),
    "hpack/5.2": ("String Literal Representation", 3),
    "hpack/6.1": ("Indexed Header Field Representation", 1),
    "hpack/6.3": ("Dynamic Table Size Update", 1),
}
"""Title, and how many cases there are: a run that leaves some out fails."""

_CLOSED = "RFC 9113, 5.1: a frame on a closed stream MAY be a connection error, where RFC 7540 had MUST; libnghttp2 discards it"
_PRIORITY = (
    "RFC 9218, 2.1: the server announces SETTINGS_NO_RFC7540_PRIORITIES, and so ignores priorities, "
    "which RFC 9113, 5.3.2, deprecates"
)
DEVIATIONS = {
    ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a DATA frame"): _CLOSED,
    ("http2/5.1", "closed: Sends a HEADERS frame"): _CLOSED,
    ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"): (
        "RFC 9113, 5.1.1, still has MUST here. But it closes streams that were skipped, and libnghttp2 discards this "
        "frame like any on a closed stream, since it cannot tell it from late trailers of a stream that was reset"
    ),
    ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"): _PRIORITY,
}
"""(section, case) that h2spec sees fail, and why."""


def _words(section: str) -> str:
    title, count = SECTIONS[section]
    others = sum(deviating == section for deviating, _ in DEVIATIONS)
    return f"{title}: {count} case{'s' * (count > 1)}" + (f", {others} of them otherwise, see below" if others else "")


H2SPEC = Suite(
    name="h2spec",
    title="h2spec",
    about=(
        "A client that breaks HTTP/2 and HPACK in every way the standards name, and looks how the server takes it "
        "(`github.com/summerwind/h2spec`). It sends requests of plain HTTP, to which a gRPC server says 405: for this run the "
        "server is made to answer them, so that frames meet streams in every state."
    ),
    cases={section: _words(section) for section in SECTIONS},
    transports=("native",),
)
