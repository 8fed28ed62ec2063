"""Write a golden journal: PYTHONPATH=tests .venv/bin/python -m golden.make FOLDER

One is kept for each release that changed what is written (v1, v2, ...), and is never written again: what it tests is
that later code reads what earlier code wrote. FOLDER must be new.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

from golden.reading import read
from golden.story import FOLDER, tell
from simulation.sim_disk import SimDisk

from reference.registry_world import virtual
from trunkline.core.clock import Rng

JOURNAL = "journal"
EXPECTED = "expected.json"


def write_journal(folder: Path) -> None:
    """Tell the story on a disk in memory, then put its files into a folder."""
    disk = SimDisk(Rng(7))
    virtual(lambda: tell(disk))
    for path in disk.paths():
        if not path.endswith("/lock"):
            file = folder / Path(path).relative_to(FOLDER)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(disk.content(path))


def main() -> None:
    """Write the journal and what reading it leads to."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    write_journal(target / JOURNAL)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(target / JOURNAL, Path(scratch) / JOURNAL))
        reading = asyncio.run(read(copy))
    text = json.dumps({**reading.facts, "topics": reading.topics}, indent=1)
    (target / EXPECTED).write_text(text + "\n")


if __name__ == "__main__":
    main()
