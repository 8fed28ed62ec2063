"""What users' tests import: the SDK against a control plane in the same process."""

from ._plane import FakeControlPlane as FakeControlPlane
from ._plane import FakeTrunkline as FakeTrunkline
from ._streams import MemoryStream as MemoryStream
from ._streams import Record as Record
