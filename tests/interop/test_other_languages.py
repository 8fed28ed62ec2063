"""Clients in other languages, over the contract alone: stock gRPC for Node and for Go against a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from integration.processes import Server, serving, trunkline
from interop.conformance.programs import need, run

ROOT = Path(__file__).parents[2]
MODULE = "trunkline.example/interop"

pytestmark = pytest.mark.timeout(420)  # compilers and package registries


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def exported(folder: Path) -> Path:
    done = trunkline("protos", "export", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_the_first_program_in_node(server: Server, tmp_path: Path) -> None:
    need("node", "npm")
    for name in ("first.js", "package.json", "package-lock.json"):
        shutil.copy(ROOT / "examples" / "node" / name, tmp_path)
    run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=tmp_path, timeout_s=120)
    exported(tmp_path / "protos")
    said = run("node", "first.js", server.address, cwd=tmp_path, timeout_s=60).splitlines()
    assert said[0] == "registered: lease granted for 10 s" or said[0].startswith("watch: cart/node-")
    assert any(line.startswith("watch: cart/node-") and "INSTANCE_STATUS_SERVING" in line for line in said)
    published = [line for line in said if line.startswith("published")]
    assert published[0].startswith("published: offset ")
    assert published[0].endswith("duplicate false, SYNC_FSYNCED")
    assert published[1] == published[0].replace("published:", "published again:").replace("false", "true")
    assert said[-1] == "deregistered"


def generate_go(folder: Path, protos: Path) -> None:
    """Package api: messages and stubs by the generators that go.mod pins."""
    generators = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
    (folder / "bin").mkdir()
    run("go", "build", "-o", "bin/", *generators, cwd=folder, timeout_s=300, GOFLAGS="-mod=mod")
    from grpc_tools import protoc

    names = [str(path.relative_to(protos)) for path in sorted(protos.glob("trunkline/api/v1/*.proto"))]
    options = [f"--{kind}_opt=M{name}={MODULE}/api" for name in names for kind in ("go", "go-grpc")]
    plugins = [f"--plugin={name}={folder / 'bin' / name}" for name in ("protoc-gen-go", "protoc-gen-go-grpc")]
    outputs = [
        part for kind in ("go", "go-grpc") for part in (f"--{kind}_out={folder}", f"--{kind}_opt=module={MODULE}")
    ]
    well_known = str(files("grpc_tools") / "_proto")
    code = protoc.main(["protoc", f"-I{protos}", f"-I{well_known}", *plugins, *outputs, *options, *names])
    assert code == 0


def test_a_client_in_go(server: Server, tmp_path: Path) -> None:
    need("go")
    program = tmp_path / "go"
    shutil.copytree(ROOT / "tests" / "interop" / "go", program)
    generate_go(program, exported(tmp_path / "protos"))
    run("go", "build", "-o", "client", ".", cwd=program, timeout_s=300)
    said = run(program / "client", server.address, cwd=program, timeout_s=60).splitlines()
    assert said[0] == "watched: INSTANCE_STATUS_SERVING"
    offset = said[1].split()[1]
    assert said[1:3] == [
        f"published: {offset} false SYNC_FSYNCED",
        f"published: {offset} true SYNC_FSYNCED",
    ]
    assert said[3].startswith("received: ")
    assert said[4].startswith("refused: service: ")
    assert said[5] == "deregistered: true"
