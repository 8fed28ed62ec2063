"""Power cuts: a server on an ext4 image is stopped in full flight, the image is copied as it is, and another server goes on
from the copy. What the kernel had not been told to sync is not in it; every acknowledgement must be.

Needs root and loop devices, and never runs in CI: `make powercut`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
from faults.machine import NotHere, ext4_image, mounted, needs_root, run
from integration.acknowledged import Ledger, Load, audit
from integration.processes import Server
from integration.waiting import until

log = logging.getLogger(__name__)

CUTS = int(os.environ.get("POWER_CUTS", "0"))
IMAGE_MB = 96
EVENTS_PER_CUT = 1_500
INSTANCES_PER_CUT = 60
MOUNT = ("-o", "loop,commit=300")
"""ext4 by itself would commit its journal every 5 s, and hide a missing fsync."""

pytestmark = pytest.mark.skipif(
    not CUTS or bool(os.environ.get("CI")), reason="power cuts run with `make powercut`, as root, never in CI"
)


def in_flight(ledger: Ledger) -> int:
    return len(ledger.sent) - ledger.published


async def cut_under_load(server: Server, ledger: Ledger, image: Path, copy: Path) -> int:
    """Publish and register until SIGSTOP; copy the image; kill. How many events were sent and not acknowledged."""
    load = asyncio.create_task(Load(server.address, ledger).run())
    try:
        events, instances = ledger.published, len(ledger.instances)
        await until(
            lambda: (
                load.done()
                or (
                    ledger.published > events + EVENTS_PER_CUT
                    and len(ledger.instances) > instances + INSTANCES_PER_CUT
                    and in_flight(ledger) > 0
                )
            )
        )
        assert not load.done(), load.exception()
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(shutil.copyfile, image, copy)
        return in_flight(ledger)
    finally:
        server.kill()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


@pytest.mark.timeout(60 + 60 * CUTS)
async def test_every_acknowledgement_survives_a_power_cut(tmp_path: Path) -> None:
    try:
        needs_root("losetup", "mount", "umount", "mkfs.ext4")
        image = ext4_image(tmp_path / "disk-0", IMAGE_MB)
    except NotHere as why:
        pytest.fail(f"power cuts cannot be made here: {why}")
    ledger = Ledger()
    cut_in_flight = 0
    for number in range(CUTS):
        copy = tmp_path / f"disk-{number + 1}"
        with mounted(image, tmp_path / f"mount-{number}", *MOUNT) as folder:
            server = Server(folder)
            server.start()
            try:
                if number:
                    assert await audit(server.address, ledger) == [], f"after cut {number}"
                cut_in_flight += await cut_under_load(server, ledger, image, copy)
            finally:
                server.kill()
        image.unlink()
        image = copy
    run("e2fsck", "-p", str(image))
    with mounted(image, tmp_path / "last", *MOUNT) as folder:
        server = Server(folder)
        server.start()
        try:
            assert await audit(server.address, ledger) == []
        finally:
            server.kill()
    assert cut_in_flight > 0, "no cut came in the middle of anything"
    log.info("%d cuts: %d events and %d instances found again", CUTS, ledger.published, len(ledger.instances))
    log.info("%d events were in flight at the cuts", cut_in_flight)
