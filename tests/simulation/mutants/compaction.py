"""Mistakes in compaction by key, in gaps, and in the start with the latest of each key."""

from __future__ import annotations

from .mutant import Mutant

JOURNAL = "trunkline.server.journal"
EVENTS = "trunkline.server.events"
KEYS = "tests/property/test_key_compaction.py::test_when_all_is_old_each_key_stands_once_and_ended_ones_go_in_time"
GAPS = "tests/unit/events/test_compaction.py"
LATEST = "tests/unit/events/test_last_per_key.py"

COMPACTION = (
    Mutant(
        "the last event of a key goes with the others",
        f"{JOURNAL}.key_compaction",
        ".get(key, -1) > offsets[i])",
        ".get(key, -1) >= offsets[i])",
        test=GAPS,
    ),
    Mutant(
        "a tombstone goes with what it ended",
        f"{JOURNAL}.key_compaction",
        "            elif self.first_tombstone is None:\n",
        "            else:\n                going.add(index)\n            if self.first_tombstone is None:\n",
        test="tests/property/test_key_compaction.py::test_the_last_of_each_key_is_there_and_nothing_comes_back",
    ),
    Mutant(
        "what a pass had no room for counts as compacted",
        f"{JOURNAL}.files.stream_compaction",
        "            return number\n    return len(dirty)\n",
        "            break\n    return len(dirty)\n",
        test=KEYS,
    ),
    Mutant(
        "events that are too young are compacted",
        f"{JOURNAL}.files.stream_compaction",
        "lambda segment: segment.last_time_ns <= cutoff_ns",
        "lambda segment: True",
        test=KEYS,
    ),
    Mutant(
        "two keys are one if the index has the same hash of both",
        f"{EVENTS}.compaction",
        'blake2b((text or "").encode(), digest_size=DIGEST_BYTES)',
        'blake2b(b"", digest_size=DIGEST_BYTES)',
        test=KEYS,
    ),
    Mutant(
        "segments that are made at the same time have the same id",
        f"{JOURNAL}.files.segments",
        "        return header._replace(segment_id=self._last_id)\n",
        "        return header\n",
        test="tests/unit/journal/test_segment_log.py",
    ),
    Mutant(
        "a compaction that fails leaves its file",
        f"{JOURNAL}.files.compaction",
        "                await self._segments.disk.unlink(path)\n",
        "                pass\n",
        test="tests/unit/journal/test_segment_log.py",
    ),
    Mutant(
        "an event that has gone takes its consumer's credit along",
        f"{EVENTS}.subscription",
        "        self._changes += 1\n        self.consumers.give(delivery.consumer, 1)\n",
        "        self._changes += 1\n",
        test=GAPS,
    ),
    Mutant(
        "a gap is looked through at once",
        f"{EVENTS}.feed",
        "        end = min(block.end, self.state.reach(matching[before] if before < len(matching) else block.end))\n",
        "        end = block.end\n",
        test=GAPS,
    ),
    Mutant(
        "what lies behind a gap waits for what lies before it",
        f"{EVENTS}.feed",
        " or (self.state.is_stretched and self.state.can_deliver)",
        "",
        test=GAPS,
    ),
    Mutant(
        "a block in the cache hides another",
        f"{EVENTS}.block_cache",
        "            self._drop_within(block)\n",
        "            pass\n",
        test=GAPS,
    ),
    Mutant(
        "what a parked lane had tried is remembered for ever",
        f"{EVENTS}.parking",
        "                    del self._parked_entries[offset]\n",
        "                    pass\n",
        test=GAPS,
    ),
    Mutant(
        "a restart forgets that only the latest of each key was wanted",
        f"{EVENTS}.subscription",
        "latest_below=0 if self.latest_from is None else self.latest_below",
        "latest_below=0",
        test=LATEST,
    ),
    Mutant(
        "a token takes up a start with the latest of each key in its middle",
        f"{EVENTS}.session",
        "        if self._ephemeral and floor >= self._feed.state.latest_below:\n",
        "        if self._ephemeral:\n",
        test=LATEST,
    ),
    Mutant(
        "all events without a key are of one",
        f"{EVENTS}.latest",
        "if key != NO_KEY and offset < below",
        "if offset < below",
        test=LATEST,
    ),
)
