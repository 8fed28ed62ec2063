"""Trunkline's Python SDK: register, watch, call, publish and consume.

`async with connect("host:port") as trunkline`.
"""

from ._backoff import BackoffOptions as BackoffOptions
from ._balancer import LoadBalancing as LoadBalancing
from ._changes import Change as Change
from ._changes import Fresh as Fresh
from ._changes import Reset as Reset
from ._changes import Stale as Stale
from ._changes import Updated as Updated
from ._channel import BalancedChannel as BalancedChannel
from ._channel import EndpointState as EndpointState
from ._channel import SentCall as SentCall
from ._chooser import Choice as Choice
from ._chooser import Chooser as Chooser
from ._connect import connect as connect
from ._connect import connect_sync as connect_sync
from ._connection import Trunkline as Trunkline
from ._delivery import Delivery as Delivery
from ._edge import Edge as Edge
from ._event import Event as Event
from ._fork import ForkedProcess as ForkedProcess
from ._link import Stubs as Stubs
from ._options import ClientOptions as ClientOptions
from ._options import Tls as Tls
from ._policies import AppliedPolicy as AppliedPolicy
from ._policies import BlastRadius as BlastRadius
from ._policies import KeptPolicy as KeptPolicy
from ._policies import PolicyChange as PolicyChange
from ._policies import PolicyState as PolicyState
from ._publish import Durability as Durability
from ._publish import Published as Published
from ._publish import PublishedEvent as PublishedEvent
from ._publisher import Publisher as Publisher
from ._pull import Fetched as Fetched
from ._registration import Drained as Drained
from ._registration import LateClient as LateClient
from ._registration import Registration as Registration
from ._requests import RequestCounts as RequestCounts
from ._schedules import Schedule as Schedule
from ._subscription import Gap as Gap
from ._subscription import Subscription as Subscription
from ._subscription_options import Start as Start
from ._subscription_options import SubscriptionOptions as SubscriptionOptions
from ._subscription_options import subscription_config as subscription_config
from ._sync_channel import SyncBalancedChannel as SyncBalancedChannel
from ._view import View as View
from .sync import SyncChoice as SyncChoice
from .sync import SyncChooser as SyncChooser
from .sync import SyncDelivery as SyncDelivery
from .sync import SyncFetched as SyncFetched
from .sync import SyncPublisher as SyncPublisher
from .sync import SyncRegistration as SyncRegistration
from .sync import SyncSubscription as SyncSubscription
from .sync import SyncTrunkline as SyncTrunkline
from .sync import SyncView as SyncView
