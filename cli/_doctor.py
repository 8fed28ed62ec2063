"""doctor: what is installed, what is reached, what looks wrong."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from trunkline.api.v1 import admin_pb2
from trunkline.client import Trunkline
from trunkline.core.errors import TrunklineError

from ._context import Settings, settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    detail: str

    def row(self) -> dict[str, Any]:
        return {"check": self.what, "result": "ok" if self.good else "PROBLEM", "detail": self.detail}


OVER_LIBNGHTTP2 = "http2"
"""What modules are called that are built only where that library is."""


@click.command(short_help="Look for what is wrong.")
@settings
def doctor(setting: Settings) -> None:
    """Look at this installation and at the control plane; exit code 1 when something is wrong.

    \b
    trunkline doctor
    trunkline --address control.example:7400 --ca ca.pem doctor
    """
    findings = [*_installation(), *_control_plane(setting)]
    setting.show((finding.row() for finding in findings), ("check", "result", "detail"), empty="")
    sys.exit(not all(finding.good for finding in findings))


def _installation() -> Iterator[Finding]:
    yield Finding("python", sys.version_info >= (3, 11), platform.python_version())
    for package in ("trunkline", "grpcio", "protobuf"):
        try:
            yield Finding(package, True, version(package))
        except PackageNotFoundError:
            yield Finding(package, False, "not installed")
    # Each compiled module has its types beside it, whether or not it could be built.
    stubs = resources.files("trunkline.core").iterdir()
    names = sorted(stub.name.removesuffix(".pyi") for stub in stubs if stub.name.endswith(".pyi"))
    compiled = [name for name in names if not name.startswith(OVER_LIBNGHTTP2)]
    missing = []
    for name in compiled:
        try:
            importlib.import_module(f"trunkline.core.{name}")
        except ImportError as error:
            missing.append(f"{name} ({error})")
    yield Finding("compiled core", not missing, ", ".join(missing) or f"{len(compiled)} modules")
    yield Finding("native transport", True, _native_transport())


def _native_transport() -> str:
    """Not having it is no fault: a server here runs on grpc.aio."""
    try:
        from trunkline.core.http2 import LIBRARY
    except ImportError:
        return "not built (it needs libnghttp2-dev and pkg-config): a server started here runs on grpc.aio"
    return f"libnghttp2 {LIBRARY}"


def _control_plane(setting: Settings) -> Iterator[Finding]:
    async def work(trunkline: Trunkline) -> admin_pb2.StatusResponse:
        return await trunkline.call(
            lambda stubs: stubs.admin.Status, admin_pb2.StatusRequest(), admin_pb2.StatusResponse
        )

    try:
        answer = setting.run(work)
    except TrunklineError as error:
        yield Finding("control plane", False, f"{setting.address}: {error}")
        return
    detail = (
        f"{setting.address}, version {answer.version}, transport {answer.transport}, revision {answer.header.revision}"
    )
    yield Finding("control plane", True, detail)
    yield Finding("data", True, answer.data_folder or "in memory only: nothing survives a restart")
    for alarm in answer.alarms:
        yield Finding(f"alarm {alarm.name}", False, f"{alarm.namespace} {alarm.subject}: {alarm.message}")
