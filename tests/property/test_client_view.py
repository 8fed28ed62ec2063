"""A view under random changes, resyncs and lost connections is what the registry says."""

from __future__ import annotations

from operator import is_

from hypothesis import given
from hypothesis import strategies as st

from trunkline.api import convert
from trunkline.api.v1.discovery_pb2 import WatchEvent
from trunkline.client._changes import Reset, Updated
from trunkline.client._view_cache import packed, unpacked
from trunkline.client._view_state import ViewState
from trunkline.core.model import Endpoint, Instance, RegisteredInstance, Status

NAMES = st.sampled_from("abcdef")


def registered(name: str, revision: int) -> RegisteredInstance:
    return RegisteredInstance(
        instance=Instance(namespace="n", service="s", id=name, endpoints=(Endpoint("h", 1),)),
        status=Status.SERVING,
        status_reason="",
        created_revision=1,
        modified_revision=revision,
        registered_at_ns=0,
    )


class Registry:
    """The truth, and the events of one watch as a server may send them."""

    def __init__(self) -> None:
        self.revision = 0
        self.held: dict[str, RegisteredInstance] = {}
        self.sent = 0
        self.log: list[tuple[int, str]] = []

    def put(self, name: str) -> None:
        self.revision += 1
        self.held[name] = registered(name, self.revision)
        self.log.append((self.revision, name))

    def drop(self, name: str) -> None:
        if self.held.pop(name, None) is not None:
            self.revision += 1
            self.log.append((self.revision, name))

    def snapshot(self, parts: int) -> list[WatchEvent]:
        instances = [convert.registered_to(one) for one in self.held.values()]
        cut = [instances[index::parts] for index in range(parts)]
        events = [WatchEvent(kind=WatchEvent.KIND_SNAPSHOT, upserted=part) for part in cut]
        events[-1].complete = True
        return self._mark(events)

    def changes(self) -> list[WatchEvent]:
        names = {name for revision, name in self.log if revision > self.sent}
        event = WatchEvent(kind=WatchEvent.KIND_CHANGES if names else WatchEvent.KIND_BOOKMARK)
        for name in sorted(names):
            if name in self.held:
                event.upserted.append(convert.registered_to(self.held[name]))
            else:
                event.removed.add(service="s", id=name)
        return self._mark([event])

    def _mark(self, events: list[WatchEvent]) -> list[WatchEvent]:
        self.sent = events[-1].revision = self.revision
        events[-1].resume_token = b"%d" % self.revision
        return events


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES),
        st.tuples(st.just("drop"), NAMES),
        st.tuples(st.just("changes"), st.just("")),
        st.tuples(st.just("snapshot"), st.integers(1, 3)),
        st.tuples(st.just("broken snapshot"), st.integers(2, 3)),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_view_is_what_was_last_sent_whole(steps: list[tuple[str, object]]) -> None:
    registry, view = Registry(), ViewState()
    told: dict[str, RegisteredInstance] = {}
    for step, argument in [("snapshot", 1), *steps, ("changes", "")]:
        match step, argument:
            case "put", str(name):
                registry.put(name)
            case "drop", str(name):
                registry.drop(name)
            case "changes", _:
                receive(view, registry.changes(), told)
            case "snapshot", int(parts):
                receive(view, registry.snapshot(parts), told)
            case "broken snapshot", int(parts):
                before, sent = view.instances, registry.sent
                for event in registry.snapshot(parts)[:-1]:
                    assert view.apply(event) is None
                    assert view.instances == before, "the old view serves until the new one is whole"
                view.disconnected()
                registry.sent = sent
                assert int(view.resume_token) == sent
    assert view.instances == tuple(registry.held[name] for name in sorted(registry.held))
    assert view.revision == registry.revision
    assert told == registry.held, "whoever follows the changes has the same"
    before = view.instances
    receive(view, registry.snapshot(2), told)
    assert view.instances == before
    assert all(map(is_, view.instances, before)), "what did not change is the same object"


def receive(view: ViewState, events: list[WatchEvent], told: dict[str, RegisteredInstance]) -> None:
    for event in events:
        change = view.apply(event)
        names = [one.instance.id for one in view.instances]
        assert names == sorted(names)
        if isinstance(change, Reset):
            told.clear()
            told.update({one.instance.id: one for one in change.instances})
        elif isinstance(change, Updated):
            assert not {one.instance.id for one in change.added} & told.keys()
            assert {one.instance.id for one in (*change.changed, *change.removed)} <= told.keys()
            told.update({one.instance.id: one for one in (*change.added, *change.changed)})
            for one in change.removed:
                del told[one.instance.id]


class Held:
    """What the cache's file format is made of."""

    def __init__(self, state: ViewState) -> None:
        self.state = state


@given(st.sets(NAMES), st.integers(0, 2**62), st.binary(max_size=40), st.data())
def test_a_cache_file_reads_back_or_is_refused(
    names: set[str], time_ns: int, token: bytes, data: st.DataObject
) -> None:
    state = ViewState()
    state.restore([registered(name, 3) for name in names], 7, token)
    written = packed(Held(state), time_ns)  # type: ignore[arg-type]
    found = unpacked(written)
    assert found is not None
    when, event = found
    assert (when, event.revision, event.resume_token) == (time_ns, 7, token)
    assert {one.instance.id for one in event.upserted} == names
    at = data.draw(st.integers(0, len(written) - 1))
    damaged = written[:at] + bytes([written[at] ^ data.draw(st.integers(1, 255))]) + written[at + 1 :]
    assert unpacked(damaged) is None
    assert unpacked(written[:at]) is None
