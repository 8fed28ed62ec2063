"""What a service of the shop did, one JSON object a line, for the demo to read at the end."""

import json
import os
import time
from pathlib import Path
from typing import Any, TextIO


class Diary:
    """Appends to a file; every line is flushed, so that a SIGKILL loses none that was written."""

    def __init__(self, name: str) -> None:
        folder = Path(os.environ.get("SHOP_DIARIES", "."))
        self._file: TextIO = (folder / f"{name}.jsonl").open("a", buffering=1)
        self._name = name

    def write(self, what: str, **values: Any) -> None:
        """Note that something happened, with the machine's monotonic time in seconds."""
        self._file.write(json.dumps({"who": self._name, "at": time.monotonic(), "what": what, **values}) + "\n")
