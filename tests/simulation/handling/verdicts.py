"""What is demanded of the handling of events, as functions of plain values: each line that they give is a broken promise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

import guarantees
from simulation.handling.delivery_log import Said, Sent

from trunkline.api.v1.events_pb2 import Acknowledgement

FINAL = (Acknowledgement.OUTCOME_ACK, Acknowledgement.OUTCOME_TERM)
RACE_S = 0.05
"""What left the server so shortly after a word was taken may have been on its way to the network."""


class Letter(NamedTuple):
    """A dead letter, and what it says of itself."""

    id: str
    subscription: str
    offset: int
    attempts: int
    reason: str
    at_s: float
    """When the event was given up, in seconds of the server's clock."""


def broke_attempts_counted(sent: Sequence[Sent], max_deliveries: int) -> Iterator[str]:
    """Attempts are counted before delivering: of an event none is delivered twice, and none above the maximum."""
    in_order = sorted((one.offset, one.attempt) for one in sent)
    seen = [guarantees.Delivered(0, offset, attempt, "") for offset, attempt in in_order]
    yield from guarantees.broke_attempts_counted(seen, max_deliveries)


def broke_settled_stays_settled(
    sent: Sequence[Sent], said: Sequence[Said], *, ack_deadline_s: float,
    durable: Callable[[float], bool], letters: Mapping[int, Sequence[float]],
) -> Iterator[str]:  # fmt: skip
    """What was acknowledged or terminated in time is not delivered again by this server, nor, when that was `durable` (asked
    with the time of the word), by the next one; and what was acknowledged gets no dead letter afterwards. `letters` are
    the times of each offset's."""
    by_offset: dict[int, list[Sent]] = defaultdict(list)
    for one in sent:
        by_offset[one.offset].append(one)
    for word in said:
        if word.outcome not in FINAL or not _counts(word, by_offset[word.offset], ack_deadline_s):
            continue
        is_durable = durable(word.at_s)
        for again in by_offset[word.offset]:
            if again.at_s > word.at_s + RACE_S and (again.life == word.life or is_durable):
                yield f"{word.offset} was settled at {word.at_s:.3f} s and delivered again at {again.at_s:.3f} s"
        if word.outcome == Acknowledgement.OUTCOME_ACK and is_durable:
            late = [at_s for at_s in letters.get(word.offset, ()) if at_s > word.at_s + RACE_S]
            yield from (
                f"{word.offset} was acknowledged at {word.at_s:.3f} s, given up at {at_s:.3f} s" for at_s in late
            )


def _counts(word: Said, sent: Sequence[Sent], ack_deadline_s: float) -> bool:
    """Whether the word is surely of the delivery that stands: the last one, its consumer's, and within the deadline."""
    before = [one for one in sent if one.at_s <= word.at_s + RACE_S]
    last = before[-1] if before else None
    is_last = last is not None and (last.consumer, last.life) == (word.consumer, word.life)
    return is_last and last is not None and word.at_s - last.at_s < ack_deadline_s - RACE_S


def broke_one_dead_letter(letters: Iterable[Letter], again: Mapping[tuple[str, int], int]) -> Iterator[str]:
    """An event has one dead letter of a subscription, and one more for each time that it was delivered `again` on request."""
    counted = Counter((letter.subscription, letter.offset) for letter in letters)
    ids = Counter(letter.id for letter in letters)
    yield from (f"dead letter {id} stands {count} times" for id, count in ids.items() if count > 1)
    for (name, offset), count in counted.items():
        if count > 1 + again.get((name, offset), 0):
            yield f"{name} gave up {offset} {count} times"


def broke_owed_dead_letter(wanted: Iterable[int], handled: Set[int], given_up: Set[int]) -> Iterator[str]:
    """Each event of the filter was handled, or has a dead letter."""
    for offset in wanted:
        if offset not in handled and offset not in given_up:
            yield f"{offset} was neither handled nor given up"


def broke_expired(sent: Iterable[Sent], expires_ns: Mapping[int, int]) -> Iterator[str]:
    """Nothing is delivered after its time is up."""
    for one in sent:
        late_ns = one.wall_ns - expires_ns.get(one.offset, one.wall_ns)
        if late_ns > RACE_S * 1e9:
            yield f"{one.offset} was delivered {late_ns / 1e9:.3f} s after its time"


def broke_asked_again(sent: Iterable[Sent], wanted: Iterable[int], asked_s: float) -> Iterator[str]:
    """What was to be delivered (again) is, after that was asked for."""
    came = {one.offset for one in sent if one.at_s >= asked_s}
    yield from (f"{offset} did not come, asked for at {asked_s:.3f} s" for offset in wanted if offset not in came)


def broke_deserved(letters: Iterable[Letter], *, max_deliveries: int, fates: Mapping[int, str]) -> Iterator[str]:
    """A dead letter says why, and that is true: all attempts were used up, or a consumer has terminated it."""
    for letter in letters:
        fate = fates[letter.offset]
        if letter.reason.startswith("unwanted"):
            if fate != "unwanted" or not 1 <= letter.attempts <= max_deliveries:
                yield f"{letter.offset} ({fate}) was terminated, it says, after {letter.attempts} attempts"
        elif not letter.reason.startswith(f"delivered {letter.attempts} times") or letter.attempts != max_deliveries:
            yield f"{letter.offset} was given up after {letter.attempts} attempts: {letter.reason}"
        elif "doomed" in letter.reason and fate not in ("doomed", "flaky"):
            yield f"{letter.offset} ({fate}) was refused, it says: {letter.reason}"


def broke_lanes_forward(sent: Sequence[Sent], key_of: Callable[[int], str]) -> Iterator[str]:
    """Of each key a server delivers nothing before the event ahead of it is done or aside: it never goes back."""
    furthest: dict[tuple[int, str], int] = {}
    for one in sent:
        lane = one.life, key_of(one.offset)
        if one.offset < furthest.get(lane, -1):
            yield f"{one.offset} of {lane[1]} was delivered at {one.at_s:.3f} s, behind {furthest[lane]}"
        furthest[lane] = max(one.offset, furthest.get(lane, -1))


def broke_no_lane_waits(
    appended_s: Mapping[int, float], first_sent_s: Mapping[int, float], limit_s: Callable[[float], float]
) -> Iterator[str]:
    """An event of a lane that is well is delivered by the limit of when it was appended, whatever other lanes do."""
    for offset, at_s in appended_s.items():
        if offset not in first_sent_s or first_sent_s[offset] > limit_s(at_s):
            yield f"{offset} was appended at {at_s:.3f} s and came at {first_sent_s.get(offset)}, not by {limit_s(at_s):.3f} s"
