"""The error tree that server and client share.

Each leaf has a stable `code` (what goes over the wire as google.rpc.ErrorInfo.reason) and a gRPC `status` by name, so that
one table, made from the tree, turns errors into statuses and back. Fields are typed attributes; nobody parses prose.
"""

from __future__ import annotations

from trunkline.core.error_root import DOMAIN as DOMAIN
from trunkline.core.error_root import InvalidArgument as InvalidArgument
from trunkline.core.error_root import TrunklineError as TrunklineError
from trunkline.core.error_root import Violation as Violation


class Unauthenticated(TrunklineError):
    """No principal could be made of the call's credentials."""

    code = "UNAUTHENTICATED"
    status = "UNAUTHENTICATED"


class PermissionDenied(TrunklineError):
    """The principal may not do this."""

    code = "PERMISSION_DENIED"
    status = "PERMISSION_DENIED"


class InstanceNotFound(TrunklineError):
    """No such instance is registered."""

    code = "INSTANCE_NOT_FOUND"
    status = "NOT_FOUND"


class NoInstance(TrunklineError):
    """There is nothing to pick: no instance of the service matches."""

    code = "NO_INSTANCE"
    status = "UNAVAILABLE"


class LeaseNotFound(TrunklineError):
    """No such lease, or not any more: register again."""

    code = "LEASE_NOT_FOUND"
    status = "NOT_FOUND"


class StreamNotFound(TrunklineError):
    """No such stream in the namespace."""

    code = "STREAM_NOT_FOUND"
    status = "NOT_FOUND"


class SubscriptionNotFound(TrunklineError):
    """No such durable subscription of the stream."""

    code = "SUBSCRIPTION_NOT_FOUND"
    status = "NOT_FOUND"


class ScheduleNotFound(TrunklineError):
    """No such schedule in the namespace."""

    code = "SCHEDULE_NOT_FOUND"
    status = "NOT_FOUND"


class ReleaseNotFound(TrunklineError):
    """The service has had no release."""

    code = "RELEASE_NOT_FOUND"
    status = "NOT_FOUND"


class TokenNotFound(TrunklineError):
    """No token has this id."""

    code = "TOKEN_NOT_FOUND"
    status = "NOT_FOUND"


class InstanceAlive(TrunklineError):
    """The instance id is alive under another lease secret; `take_over` would replace it."""

    code = "INSTANCE_ALIVE"
    status = "ALREADY_EXISTS"


class InstanceOverridden(TrunklineError):
    """An operator's override stands above what was asked for; it has to be taken back first."""

    code = "INSTANCE_OVERRIDDEN"
    status = "FAILED_PRECONDITION"


class StreamExists(TrunklineError):
    """The stream is there with another configuration."""

    code = "STREAM_EXISTS"
    status = "ALREADY_EXISTS"


class SubscriptionExists(TrunklineError):
    """The subscription is there with another configuration."""

    code = "SUBSCRIPTION_EXISTS"
    status = "ALREADY_EXISTS"


class ScheduleExists(TrunklineError):
    """The schedule is there with another configuration."""

    code = "SCHEDULE_EXISTS"
    status = "ALREADY_EXISTS"


class ReleaseRunning(TrunklineError):
    """Another release of the service is on its way: promote or abort that first; `fields` has its `version`."""

    code = "RELEASE_RUNNING"
    status = "FAILED_PRECONDITION"


class ReleaseEnded(TrunklineError):
    """The service's last release is over and cannot be steered; `fields` has its `phase`."""

    code = "RELEASE_ENDED"
    status = "FAILED_PRECONDITION"


class ReleaseBaselineEmpty(TrunklineError):
    """What the release would return to has no instance that can be called."""

    code = "RELEASE_BASELINE_EMPTY"
    status = "FAILED_PRECONDITION"


class RevisionMismatch(TrunklineError):
    """The caller named a revision that is not the entity's last."""

    code = "REVISION_MISMATCH"
    status = "ABORTED"


class BlastRadius(TrunklineError):
    """The change would take away more than its limits say; `force` does it all the same. `fields` has service, share, limit."""

    code = "BLAST_RADIUS"
    status = "FAILED_PRECONDITION"


class PolicyNotFound(TrunklineError):
    """The service, or the namespace, has no policy of its own."""

    code = "POLICY_NOT_FOUND"
    status = "NOT_FOUND"


class WriteConflict(TrunklineError):
    """Another control plane wrote first, and trying again did not succeed within the deadline."""

    code = "WRITE_CONFLICT"
    status = "ABORTED"


class RevisionCompacted(TrunklineError):
    """What is asked for lies before the oldest revision that is kept: start from a snapshot."""

    code = "REVISION_COMPACTED"
    status = "OUT_OF_RANGE"


class RevisionInFuture(TrunklineError):
    """What is asked for has not happened yet."""

    code = "REVISION_IN_FUTURE"
    status = "OUT_OF_RANGE"


class PositionOutOfRange(TrunklineError):
    """An event position that the stream does not hold."""

    code = "POSITION_OUT_OF_RANGE"
    status = "OUT_OF_RANGE"


class PositionMismatch(TrunklineError):
    """The stream's next event would not get the offset that the publish expected; `fields` has `next`."""

    code = "POSITION_MISMATCH"
    status = "ABORTED"


class ProducerFenced(TrunklineError):
    """A newer epoch of the producer has published: this one may not any more; `fields` has `epoch`, the newer one."""

    code = "PRODUCER_FENCED"
    status = "FAILED_PRECONDITION"


class UnknownProducer(TrunklineError):
    """The stream does not know this epoch of the producer: sequence 1 is missing, or it was forgotten and needs a newer one."""

    code = "UNKNOWN_PRODUCER"
    status = "FAILED_PRECONDITION"


class OutOfOrderSequence(TrunklineError):
    """What the producer published before this is missing: repeat from `expected` on, which `fields` has."""

    code = "OUT_OF_ORDER_SEQUENCE"
    status = "FAILED_PRECONDITION"


class DuplicateSequence(TrunklineError):
    """The producer published this before, too long ago for its offsets to be remembered."""

    code = "DUPLICATE_SEQUENCE"
    status = "ALREADY_EXISTS"


class SequenceReused(TrunklineError):
    """The producer has published another event under this sequence: two programs share its epoch, or one counts wrong."""

    code = "SEQUENCE_REUSED"
    status = "ALREADY_EXISTS"


class TokenMalformed(TrunklineError):
    """A resume token that was not made by Trunkline, or was damaged."""

    code = "TOKEN_MALFORMED"
    status = "INVALID_ARGUMENT"


class TokenForeign(TrunklineError):
    """A resume token of another journal or another stream or watch."""

    code = "TOKEN_FOREIGN"
    status = "FAILED_PRECONDITION"


class DurabilityUnmet(TrunklineError):
    """The stream or the engine does not promise what was required."""

    code = "DURABILITY_UNMET"
    status = "FAILED_PRECONDITION"


class NotSupported(TrunklineError):
    """Asked for something that this method, stream or engine does not do."""

    code = "NOT_SUPPORTED"
    status = "FAILED_PRECONDITION"


class LimitExceeded(TrunklineError):
    """A named limit is reached; `fields` has `limit` and `value`."""

    code = "LIMIT_EXCEEDED"
    status = "RESOURCE_EXHAUSTED"

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(f"limit {limit} = {value} is reached", limit=limit, value=str(value))


class RateLimited(TrunklineError):
    """The caller's own rate limit for the service lets no more calls through now. Raised by clients."""

    code = "RATE_LIMITED"
    status = "RESOURCE_EXHAUSTED"


class CircuitOpen(TrunklineError):
    """The caller's circuit breaker of the service, or of each of its endpoints, lets no call through. Raised by clients."""

    code = "CIRCUIT_OPEN"
    status = "UNAVAILABLE"


class OutcomeUnknown(TrunklineError):
    """The write may or may not have been kept: repeat it with the same id."""

    code = "OUTCOME_UNKNOWN"
    status = "UNAVAILABLE"


class NotReady(TrunklineError):
    """The control plane has not caught up with its journal, or is about to stop."""

    code = "NOT_READY"
    status = "UNAVAILABLE"


class Unreachable(TrunklineError):
    """The control plane could not be reached, or the connection to it was lost. Raised by clients."""

    code = "UNREACHABLE"
    status = "UNAVAILABLE"


class DeadlineExceeded(TrunklineError):
    """The call's deadline passed before it was done."""

    code = "DEADLINE_EXCEEDED"
    status = "DEADLINE_EXCEEDED"


class RequestFailed(TrunklineError):
    """The service that handled a request over events failed, with an error of its own."""

    code = "REQUEST_FAILED"
    status = "UNKNOWN"


class DiskFull(TrunklineError):
    """No space for the journal. Reading and keep-alives go on."""

    code = "DISK_FULL"
    status = "UNAVAILABLE"


class DiskReadOnly(TrunklineError):
    """The journal's disk does not take writes."""

    code = "DISK_READ_ONLY"
    status = "UNAVAILABLE"


class StreamClosed(TrunklineError):
    """The stream was closed after its disk failed and is being recovered."""

    code = "STREAM_CLOSED"
    status = "UNAVAILABLE"


class SubscriptionMoved(TrunklineError):
    """The subscription goes on at another place of its stream: open it again; what is in hand is delivered anew, or not."""

    code = "SUBSCRIPTION_MOVED"
    status = "UNAVAILABLE"


class JournalLocked(TrunklineError):
    """Another process has the journal's folder open."""

    code = "JOURNAL_LOCKED"
    status = "FAILED_PRECONDITION"


class JournalCorrupt(TrunklineError):
    """Bytes that were synced do not read back as they were written."""

    code = "JOURNAL_CORRUPT"
    status = "DATA_LOSS"


class JournalTooNew(TrunklineError):
    """The folder was written by a newer Trunkline."""

    code = "JOURNAL_TOO_NEW"
    status = "FAILED_PRECONDITION"


class Internal(TrunklineError):
    """Something went wrong in the control plane that should not; its log has more."""

    code = "INTERNAL_ERROR"
    status = "INTERNAL"


class RemoteError(TrunklineError):
    """Refused with a reason that this version does not know: `code` and `status` are those of this one error."""

    code = "REMOTE_ERROR"
    status = "UNKNOWN"


def leaf_errors() -> dict[str, type[TrunklineError]]:
    """Every error by its code."""
    found: dict[str, type[TrunklineError]] = {}
    pending = list(TrunklineError.__subclasses__())
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        assert error.code not in found, f"two errors have the code {error.code}"
        found[error.code] = error
    return found
