"""Events that become true with the application's own database transaction: written into its table, published by a relay."""

from ._outbox import Outbox as Outbox
from ._relay import Relay as Relay
from ._relay import RelayCounts as RelayCounts
from ._relay import RelayOptions as RelayOptions
from ._store import Refusal as Refusal
from ._store import RowCounts as RowCounts
from ._store import Store as Store
from ._store import StoreAway as StoreAway
from ._store import open_store as open_store
