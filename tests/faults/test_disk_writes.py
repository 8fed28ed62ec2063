"""Writes without the interpreter's lock, on a disk that takes parts, fails, and is slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import writes_story
from faults.faulty_disk import FaultyDisk


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_writes_on_a_faulty_disk(tmp_path: Path, loop: str) -> None:
    environment = {**os.environ, **FaultyDisk(tmp_path).environment}
    command = [sys.executable, "-X", "dev", writes_story.__file__, loop]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
