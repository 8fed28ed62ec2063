"""What a benchmark tells while it runs: peers that are skipped, commands that were run. It goes to stderr and is kept."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

SAID: list[str] = []
"""So far, without repetitions."""


def say(text: str) -> None:
    """One line; nothing when it was said before."""
    if text not in SAID:
        SAID.append(text)
        sys.stderr.write(f"  {text}\n")
        sys.stderr.flush()


def say_command(words: Sequence[str], *, folder: str = "") -> None:
    """A command line as it is run; where programs and folders lie is nobody's business."""
    text = shlex.join([os.path.basename(words[0]), *words[1:]])
    say("$ " + (text.replace(folder, "TMP") if folder else text))
