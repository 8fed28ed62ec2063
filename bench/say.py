"""What a benchmark tells while it runs: peers that are skipped, commands that were run. It goes to stderr."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence


def say(text: str) -> None:
    """One line."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()


def command(words: Sequence[str], *, hide: str = "") -> None:
    """A command line as it is run; `hide` is a folder that is nobody's business."""
    text = shlex.join(words)
    say("$ " + (text.replace(hide, "TMP") if hide else text))
