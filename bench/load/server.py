"""`trunkline serve` as a user starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.load.process import Process

TRUNKLINE = str(Path(sys.executable).parent / "trunkline")
READY = re.compile(r"is ready: gRPC on ([^\s,]+)")
NATIVE, GRPCIO = "native", "grpcio"
"""What speaks HTTP/2 for the server."""


def called(transport: str) -> str:
    """In a metric."""
    return {NATIVE: "native", GRPCIO: "grpc.aio"}[transport]


@dataclass(frozen=True, slots=True)
class Tls:
    """What `trunkline init` makes for a server on loopback."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Tls:
        """In a folder that is not there yet."""
        command = [TRUNKLINE, "init", str(folder), "--host", "127.0.0.1"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30)
        return cls(folder)

    @property
    def options(self) -> tuple[str, ...]:
        """Of `trunkline serve`."""
        return "--tls-certificate", str(self.folder / "server.pem"), "--tls-key", str(self.folder / "server.key")

    def channel(self, address: str) -> grpc.Channel:
        """That trusts it."""
        return grpc.secure_channel(address, grpc.ssl_channel_credentials((self.folder / "ca.pem").read_bytes()))


class Server(Process):
    """Without the HTTP listener; on a free port of loopback unless told otherwise."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        listen: str = "127.0.0.1:0",
        transport: str = NATIVE,
        core: int | None = None,
        **environment: str,
    ) -> None:
        words = [TRUNKLINE, "serve", "--listen", listen, "--http-listen", "", "--log-level", "warning"]
        data = [] if "--memory" in options else ["--data", str(folder / "data")]
        chosen = ["--transport", transport]
        super().__init__([*words, *data, *chosen, *options], folder / "serve.log", core=core, **environment)

    def ready(self, *, within_s: float = 60) -> str:
        """Its address, once it says that it is ready."""
        return self.wait_for(READY, within_s=within_s)[1]
