"""Journals that earlier code wrote lead to the state that earlier code had; newer ones are refused in one line."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from golden.make import EXPECTED, JOURNAL, write_journal
from golden.reading import NOTHING, Reading, read

from trunkline.core.errors import JournalCorrupt, JournalTooNew
from trunkline.server.journal.files.inspect import check
from trunkline.server.journal.files.real_disk import RealDisk

GOLDEN = sorted(path.parent for path in Path(__file__).parent.glob(f"v*/{EXPECTED}"))
TOPIC = re.compile(r"(node|instance|lease|probe|override|stream|subscription|schedule|policy|token)\.[a-z]+")
CONTRACT = Path(__file__).parents[2] / "protos/trunkline/api/journal/v1/control.proto"


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of a golden journal, and what is recorded of it."""
    folder = tmp_path / JOURNAL
    shutil.copytree(request.param / JOURNAL, folder)
    return folder, json.loads((request.param / EXPECTED).read_text())


def compare(reading: Reading, expected: dict[str, Any]) -> None:
    assert {**reading.facts, "topics": reading.topics} == {"schedules": NOTHING, "policies": NOTHING, **expected}


def test_there_is_a_golden_journal() -> None:
    assert GOLDEN, "the tests below would pass by not running"


async def test_it_folds_to_the_recorded_state(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = golden
    assert len(list((folder / "snapshots").iterdir())) == 2
    compare(await read(folder), expected)


async def test_the_older_snapshot_leads_to_the_same_state(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = golden
    max((folder / "snapshots").iterdir()).unlink()
    compare(await read(folder), expected)


async def test_without_snapshots_its_records_lead_to_the_same_state(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = golden
    shutil.rmtree(folder / "snapshots")
    compare(await read(folder), expected)


async def test_reading_what_opening_left_leads_to_the_same_state(golden: tuple[Path, dict[str, Any]]) -> None:
    """It was not closed cleanly: opening it copies the tails to new segments."""
    folder, expected = golden
    await read(folder)
    compare(await read(folder), expected)


async def test_check_finds_it_whole(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = golden
    report = await check(RealDisk(), str(folder))
    assert report.sound, report
    assert {stream.name: stream.records for stream in report.streams} == {
        name: stream["records"] for name, stream in expected["streams"].items()
    }
    assert not any(stream.torn_bytes for stream in report.streams)


def test_the_newest_has_every_topic_of_the_contract() -> None:
    """A topic that is added needs a golden journal that has it."""
    named = {found.group(0) for found in TOPIC.finditer(CONTRACT.read_text())} - {"stream.name", "policy.proto"}
    expected = json.loads((GOLDEN[-1] / EXPECTED).read_text())
    assert named == set(expected["topics"])


def test_the_story_can_still_be_told(tmp_path: Path) -> None:
    """Today's code may write it otherwise (then add a golden journal, and keep the old ones), not to another end."""
    write_journal(tmp_path)
    facts, expected = asyncio.run(read(tmp_path)).facts, json.loads((GOLDEN[-1] / EXPECTED).read_text())
    assert facts["statuses"] == expected["statuses"]
    assert facts["logs"] == expected["logs"]
    for stream in ("shop/events", "shop/audit", "shop/prices"):
        assert facts["streams"][stream]["records"] == expected["streams"][stream]["records"]


def _newer_small_file(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes().replace(b"journal format 1", b"journal format 2", 1))

    return change


def _newer_header(begin: int, size: int, version_at: int, version: int = 2) -> Callable[[Path], None]:
    """A newer version in a header at `begin` of the control segment, its checksum made right again."""

    def change(folder: Path) -> None:
        (path,) = (folder / "streams/trunkline.control").glob("*.seg")
        data = bytearray(path.read_bytes())
        struct.pack_into("<H", data, begin + version_at, version)
        crc_at = begin + size - 4
        struct.pack_into("<I", data, crc_at, google_crc32c.value(bytes(data[begin:crc_at])))
        path.write_bytes(data)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_newer_small_file("journal"), id="journal"),
        pytest.param(_newer_small_file("streams/trunkline.control/meta"), id="meta"),
        pytest.param(_newer_header(0, 64, 4), id="segment"),
        pytest.param(_newer_header(64, 88, 4, version=3), id="block"),
    ],
)
async def test_a_newer_format_is_refused_in_one_line(
    golden: tuple[Path, dict[str, Any]], change: Callable[[Path], None]
) -> None:
    folder, _ = golden
    change(folder)
    with pytest.raises(
        JournalTooNew, match=r"format (2; this program reads up to 1|3; this program reads up to 2)"
    ) as refused:
        await read(folder)
    assert "\n" not in refused.value.message


async def test_a_snapshot_of_a_newer_form_is_left_out_and_the_records_do(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = golden
    for path in (folder / "snapshots").iterdir():
        data = bytearray(path.read_bytes())
        struct.pack_into("<I", data, 4, 2)
        struct.pack_into("<I", data, 36, google_crc32c.value(bytes(data[:36])))
        path.write_bytes(data)
    compare(await read(folder), expected)


@pytest.mark.parametrize("section", ["registry", "events", "tokens", "admission", "schedules", "policies"])
async def test_a_snapshot_with_a_newer_section_is_left_out_whole(
    golden: tuple[Path, dict[str, Any]], section: str
) -> None:
    folder, expected = golden
    if section in ("schedules", "policies") and section not in expected:
        pytest.skip("older than this section")
    for path in (folder / "snapshots").iterdir():
        head, data = bytearray(path.read_bytes()[:40]), bytearray(path.read_bytes()[40:])
        at = data.index(struct.pack("<I", 1) + section.encode())
        struct.pack_into("<I", data, at, 2)
        data[-32:] = hashlib.sha256(data[:-37]).digest()
        struct.pack_into("<I", head, 32, google_crc32c.value(bytes(data)))
        struct.pack_into("<I", head, 36, google_crc32c.value(bytes(head[:36])))
        path.write_bytes(head + data)
    compare(await read(folder), expected)


async def test_a_journal_without_its_first_line_is_no_journal(golden: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = golden
    path = folder / "journal"
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    with pytest.raises(JournalCorrupt):
        await read(folder)
