_Version = tuple[int, int, int]
"""Writer, epoch, sequence."""
_Head = tuple[str, str, str, int, _Version | None, _Version | None, str, str, str]

def read_head(head: bytes) -> _Head: ...
def write_head(
    key: str,
    id: str,
    namespace: str,
    schema: int,
    version: _Version | None,
    expects: _Version | None,
    author: str,
    reason: str,
    traceparent: str,
) -> bytes: ...
def read_versions(piece: bytes) -> tuple[list[tuple[str, int, int, int]], bytes]: ...
