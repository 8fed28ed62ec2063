"""The blocking face is what its generator writes, and covers what the async one offers."""

from __future__ import annotations

import inspect

from trunkline.client import _generate_sync, sync
from trunkline.client._sync_base import SyncFace


def test_sync_is_as_generated() -> None:
    written = (_generate_sync.HERE / "sync.py").read_text()
    assert written == _generate_sync.generated(), "run: python -m trunkline.client._generate_sync"


def test_every_face_is_a_class_with_the_methods_of_its_original() -> None:
    for name, face in _generate_sync.FACES.items():
        made = getattr(sync, f"Sync{name}")
        assert issubclass(made, SyncFace)
        for public in face.public:
            renamed = _generate_sync.RENAMED.get(public, public)
            assert renamed in vars(made), f"{name}.{public}"
            assert not inspect.iscoroutinefunction(getattr(made, renamed)), f"Sync{name}.{renamed}"
            assert inspect.getdoc(inspect.getattr_static(made, renamed)) or renamed.startswith("__"), f"{name}.{public}"


def test_everything_that_users_call_on_a_connection_is_faced() -> None:
    from trunkline.client import Trunkline

    offered = {name for name in dir(Trunkline) if not name.startswith("_")}
    assert offered - set(_generate_sync.FACES["Trunkline"].public) == {"close", "guard", "serve_requests"}
    assert {"close", "serve_requests"} <= set(dir(sync.SyncTrunkline))
