"""The mutants: each a mistake that somebody could make in shipped code, as a replacement in one module's source."""

from __future__ import annotations

from simulation.mutants.calling import CALLING_MUTANTS
from simulation.mutants.compaction import COMPACTION
from simulation.mutants.handling import HANDLING_MUTANTS
from simulation.mutants.mutant import CLIENT, DISCOVERY, EVENTS, JOURNAL, PAIR, REGISTRY, Mutant
from simulation.mutants.policies import POLICY_MUTANTS
from simulation.mutants.releases import RELEASES

MUTANTS = (
    # The journal.
    Mutant(
        "a publish is answered before its append is durable",
        f"{JOURNAL}.event_log",
        "                    await asyncio.shield(pending.future)\n                    return",
        "                    return",
    ),
    Mutant(
        "a control write is answered before its append is durable",
        f"{JOURNAL}.control.sequencer",
        "                waiter = self._waits.enter(write, deadline_ns)\n",
        "                return Written(self.revision + self._queued_records, ())\n                waiter = None\n",
    ),
    Mutant(
        "a write is not synced",
        f"{JOURNAL}.files.segment_log",
        "data, sync=synced)",
        "data, sync=False)",
    ),
    Mutant(
        "a group is told while it is being written",
        f"{JOURNAL}.files.segment_log",
        "        self._tell_written()\n        try:\n            await writing\n",
        "        self._tell_written()\n        self._untold = group\n        self._tell_written()\n"
        "        try:\n            await writing\n",
    ),
    Mutant(
        "the folder of a new segment is not synced",
        f"{JOURNAL}.files.segment",
        "    await disk.sync_folder(segment.folder)\n",
        "",
        faults=("power cut",),
    ),
    Mutant(
        "a position is used twice",
        f"{JOURNAL}.files.segment_log",
        "AppendQueue(self.next_offset, ",
        "AppendQueue(max(0, self.next_offset - 1), ",
    ),
    Mutant(
        "a failed sync is tried again and then believed",
        f"{JOURNAL}.files.segment_log",
        "        except TrunklineError as error:\n            await self._write_failed(error, group, position)\n"
        "            return\n",
        "        except TrunklineError as error:\n            if error.fields.get('operation') != SYNC:\n"
        "                await self._write_failed(error, group, position)\n                return\n"
        "            while True:\n                try:\n                    await self._disk.sync(self._segments.file)\n"
        "                    break\n                except TrunklineError:\n                    pass\n",
        faults=("failing sync",),
    ),
    Mutant(
        "after a failed write what is not durable is believed",
        f"{JOURNAL}.files.segment_log",
        "        lost = kept_end < self.next_offset\n",
        "        kept_end = kept_end + 1\n        lost = kept_end < self.next_offset\n",
    ),
    Mutant(
        "a torn tail is taken for good",
        f"{JOURNAL}.block",
        "    if google_crc32c.value(data[payload_at : at + header.size]) != header.payload_crc:\n",
        "    if False:\n",
        test="tests/property/test_journal_crash.py::test_what_was_acknowledged_is_kept",
    ),
    Mutant(
        "the overlay outlives a failed append",
        f"{JOURNAL}.control.sequencer",
        "        self._overlay.drop()\n",
        "",
        faults=("failing sync", "failing write", "full disk"),
    ),
    Mutant(
        "a snapshot claims one record too many",
        f"{JOURNAL}.control.node",
        "encoding = frames(revision, ",
        "encoding = frames(revision + 1, ",
        faults=("kill", "restart", "power cut"),
    ),
    Mutant(
        "records of one group are told one by one",
        f"{JOURNAL}.control.sequencer",
        "            if admitted:\n                applied.append(record)\n",
        "            if admitted:\n                applied.append(record)\n"
        "                if block.count > 1:\n"
        "                    for listener in self._listeners:\n"
        "                        listener(Group(record.offset, block.time_ns, (record,), 0))\n",
    ),
    Mutant(
        "an older epoch is not fenced",
        f"{JOURNAL}.control.admission",
        "        if epoch != self.epochs.get(writer, 0):\n            return False\n",
        "",
        world=PAIR,
    ),
    Mutant(
        "an append that comes twice counts twice",
        f"{JOURNAL}.control.admission",
        "        if sequence <= self.sequences.get(writer, 0):\n            return False\n",
        "",
        world=PAIR,
    ),
    Mutant(
        "what a record expects is not looked at",
        f"{JOURNAL}.control.admission",
        "        if self.last.get(record.key) != record.expects:\n            return False\n",
        "",
        world=PAIR,
    ),
    # Publishing.
    Mutant(
        "a start forgets which events were published",
        f"{JOURNAL}.event_log",
        "        window.add_many(ids.id_hashes[2 * first : 2 * last], ids.base_offset + first, ids.time_ns)\n",
        "        pass\n",
        faults=("kill", "restart", "power cut"),
    ),
    Mutant(
        "the window of repeated events is not looked at",
        f"{JOURNAL}.event_log",
        "if found is None:",
        "if True:",
    ),
    Mutant(
        "a duplicate is answered before its original is durable",
        f"{JOURNAL}.event_log",
        "        for future in waited:\n            await asyncio.shield(future)\n",
        "",
        faults=("power cut", "failing sync"),
    ),
    Mutant(
        "a failed append leaves its ids in the window",
        f"{JOURNAL}.event_log",
        "self._window.take_back(pending.offset)",
        "pass",
        test="tests/unit/events/test_event_log.py::test_a_failed_append_takes_its_ids_back_and_fails_its_duplicates",
    ),
    # Producers.
    Mutant(
        "a failed append leaves the producer's numbers behind",
        f"{JOURNAL}.event_log",
        "self._producers.take_back(run.producer, pending.offset)",
        "pass",
        test="tests/property/test_producers.py::test_on_segment_files",
    ),
    Mutant(
        "a start forgets what producers have published",
        f"{JOURNAL}.event_log",
        "producers.learn(run, ids.base_offset, ids.time_ns)",
        "pass",
        test="tests/property/test_producers.py::test_on_segment_files",
    ),
    Mutant(
        "a number behind a gap is taken",
        "trunkline.core.sequences",
        "if run.first_sequence > known.next_sequence:",
        "if False:",
        test="tests/property/test_producers.py::test_on_segment_files",
    ),
    Mutant(
        "a producer is fenced by an epoch that may fail",
        f"{JOURNAL}.numbered_publish",
        "        elif not self._appends.producers.epoch_is_unsettled(self._run.producer):\n            return ()",
        "        else:\n            return ()",
        test="tests/unit/events/test_numbered_publish.py::test_an_older_epoch_is_fenced_but_only_by_what_is_durable",
    ),
    Mutant(
        "a producer's events are numbered anew although they may be there",
        f"{CLIENT}._publisher",
        "            batch.in_doubt = True  # its answer went down with the last stream\n",
        "            pass\n",
        test="tests/unit/client/test_producer.py::test_but_not_when_it_cannot_know_whether_the_stream_has_what_it_sent",
    ),
    # Leases.
    Mutant(
        "a start gives no grace",
        f"{REGISTRY}.lease_keeper",
        "live.append((lease.id, lease.ttl_ms, entry.registered.instance.namespace))",
        "live.append((lease.id, lease.ttl_ms // 4, entry.registered.instance.namespace))",
    ),
    Mutant(
        "queued keep-alives are not read before leases expire",
        f"{REGISTRY}.expiry",
        "        await self._read_queued()\n",
        "",
        test="tests/unit/registry/test_registry.py::test_a_queued_keep_alive_is_read_before_its_lease_lapses",
    ),
    Mutant(
        "a stall of the server is blamed on the holders",
        f"{REGISTRY}.stall",
        "        return late_ns\n",
        "        return 0\n",
    ),
    Mutant(
        "the guard against mass lapses is off",
        f"{REGISTRY}.guard",
        "        return lapsed >= self.config.lapses_min and ",
        "        return False and lapsed >= self.config.lapses_min and ",
        faults=("isolation",),
    ),
    Mutant(
        "the last instance of a service may go",
        f"{REGISTRY}.guard",
        "        if serving_left <= 0:\n",
        "        if False:\n",
    ),
    Mutant(
        "a dead instance is kept twice as long",
        f"{REGISTRY}.lease_keeper",
        "self.live.grant(lease_id, ttl_ms=after.ttl_ms, now_ns",
        "self.live.grant(lease_id, ttl_ms=2 * after.ttl_ms, now_ns",
    ),
    Mutant(
        "a lapsed lease that is heard of stays lapsed",
        f"{REGISTRY}.registry",
        "        if self.keeper.restoring:\n            self.expiry.heard()\n",
        "",
    ),
    Mutant(
        "the secret of a lease is not checked",
        f"{REGISTRY}.decisions",
        "            if not lease.lapsed and not wanted.take_over:\n",
        "            if False:\n",
    ),
    # Watches.
    Mutant(
        "a delta is dropped",
        f"{DISCOVERY}.watch_group",
        "                    upserted.append(after)\n                elif",
        "                    upserted.append(after) if revision % 16 else None\n                elif",
    ),
    Mutant(
        "removals are not remembered",
        f"{REGISTRY}.fold",
        "        state.tombstones[instance.id] = revision\n        self._gone",
        "        self._gone",
    ),
    Mutant(
        "a watch resumes behind its token",
        f"{DISCOVERY}.watch_hub",
        "            watch.covered = watch.acked = resumed\n",
        "            watch.covered = watch.acked = resumed + 1\n",
    ),
    Mutant(
        "a watch resumes before its token",
        f"{DISCOVERY}.watch_hub",
        "            watch.covered = watch.acked = resumed\n",
        "            watch.covered = watch.acked = max(0, resumed - 2)\n",
    ),
    Mutant(
        "a bookmark is ahead of the data",
        f"{DISCOVERY}.watch_teller",
        "self._put(watch, watch.group.bookmark(revision))",
        "self._put(watch, watch.group.bookmark(revision + 1))",
    ),
    Mutant(
        "bookmarks are not sent",
        f"{DISCOVERY}.watch_teller",
        "        self._put(watch, watch.group.bookmark(revision))\n",
        "",
    ),
    Mutant(
        "a view is swapped before its snapshot is complete",
        f"{CLIENT}._view_state",
        "        if not event.complete:\n            return None\n        self._held",
        "        self._held",
    ),
    Mutant(
        "a client keeps a token that is of no use",
        f"{CLIENT}._view_state",
        '        self.resume_token = b""\n\n    def restore',
        "        return\n\n    def restore",
        test="tests/integration/test_client_server.py::test_a_control_plane_with_another_journal_is_started_over_with",
    ),
    Mutant(
        "a drain does not wait for watchers",
        f"{DISCOVERY}.applied",
        "            if group.scope.holds(scope.namespace, scope.service):\n                for watch",
        "            if False:\n                for watch",
    ),
    # Subscriptions.
    Mutant(
        "what a lost consumer had is forgotten",
        f"{EVENTS}.subscription",
        '        self._land(entry)\n        self._wait(entry, now_ns, time_ns, "its consumer went away")\n',
        "        self._land(entry)\n",
    ),
    Mutant(
        "what is not acknowledged in time is forgotten",
        f"{EVENTS}.subscription",
        '            self._wait(entry, now_ns + delay_ns, time_ns, "it was not acknowledged in time")\n',
        "",
    ),
    Mutant(
        "a checkpoint is ahead of the acknowledgements",
        f"{EVENTS}.subscription",
        "        undone = chain(self._open, self._order.untold())\n",
        "        undone = self._order.untold()\n",
    ),
    Mutant(
        "a key's events do not wait for one another",
        f"{EVENTS}.places",
        "        return Lanes(self._open, one=ordering is Ordering.SEQUENTIAL, parked_max=parked_max)\n",
        "        return AnyOrder(self._open)\n",
    ),
    Mutant(
        "a lane goes on in the wrong order",
        f"{EVENTS}.lanes",
        "            self.held -= 1\n            return lane[0]\n",
        "            self.held -= 1\n            lane.rotate(1)\n            return lane[0]\n",
    ),
    Mutant(
        "a subscription that is moved believes a checkpoint of the place before",
        f"{EVENTS}.subscription",
        "        if saving.of is not self:\n            return\n",
        "",
        test="tests/unit/events/test_seek_and_explain.py",
    ),
    Mutant(
        "deliveries are not counted before they are made",
        f"{EVENTS}.subscription",
        "is_new = bool(ready) and ready[0] < self.reserved_to\n",
        "is_new = bool(ready)\n",
        test="tests/simulation/test_events_crash_points.py",
    ),
    Mutant(
        "the checkpoints' stream is not recovered",
        f"{EVENTS}.checkpoint",
        "            await self._recover()\n",
        "",
    ),
    Mutant(
        "a client does not register again",
        f"{CLIENT}._registration",
        '        self._tasks.spawn(self._register_again(), name=f"register {self.id} again")\n',
        "",
    ),
    # The outbox, and requests over events.
    Mutant(
        "a row is settled before the bus has acknowledged it",
        f"{CLIENT}.outbox._plan",
        "        self._is_away = True\n",
        "        self._published = self._groups.popleft()\n",
        test="tests/property/test_outbox_plan.py::test_a_relay_that_dies_at_any_step",
    ),
    Mutant(
        "the halves of a refused request change places",
        f"{CLIENT}.outbox._plan",
        "extendleft((rows[half:], rows[:half]))",
        "extendleft((rows[:half], rows[half:]))",
        test="tests/property/test_outbox_plan.py::test_a_relay_that_dies_at_any_step",
    ),
    Mutant(
        "two relays work on one table",
        f"{CLIENT}.outbox._sqlite",
        "            return False\n        return True\n",
        "            return True\n        return True\n",
        test="tests/unit/client/test_outbox.py::test_a_second_relay_waits_and_takes_over",
    ),
    Mutant(
        "a reply is given to who has waited longest",
        f"{CLIENT}._requests",
        "self.waiting.pop(str(event.attributes.get(CORRELATION)), None)",
        'self.waiting.pop(next(iter(self.waiting), ""), None)',
        test="tests/unit/client/test_requests.py",
    ),
    Mutant(
        "a request is handled past its deadline",
        f"{CLIENT}._answering",
        "        if remaining_s is not None and remaining_s <= 0:\n",
        "        if False:\n",
        test="tests/unit/client/test_requests.py",
    ),
    *HANDLING_MUTANTS,
    *COMPACTION,
    *CALLING_MUTANTS,
    *POLICY_MUTANTS,
    *RELEASES,
)
