"""`trunkline serve` as a user starts it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench.load.process import Process

TRUNKLINE = str(Path(sys.executable).parent / "trunkline")
READY = re.compile(r"is ready: gRPC on ([^\s,]+)")


class Server(Process):
    """Without the HTTP listener; on a free port of loopback unless told otherwise."""

    def __init__(
        self, folder: Path, *options: str, listen: str = "127.0.0.1:0", core: int | None = None, **environment: str
    ) -> None:
        words = [TRUNKLINE, "serve", "--listen", listen, "--http-listen", "", "--log-level", "warning"]
        data = [] if "--memory" in options else ["--data", str(folder / "data")]
        super().__init__([*words, *data, *options], folder / "serve.log", core=core, **environment)

    def ready(self, *, within_s: float = 60) -> str:
        """Its address, once it says that it is ready."""
        return self.wait_for(READY, within_s=within_s)[1]
