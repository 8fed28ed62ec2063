"""Every program and command of docs/ and the README that is marked as running does what it is there for, as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.processes import TRUNKLINE, Server
from repository.doc_pages import DOCS, PAGES, README, Snippet, snippets

from trunkline.server.app import ServerConfig
from trunkline.server.config import load

ADDRESS = "127.0.0.1:7400"
HTTP_ADDRESS = "127.0.0.1:7401"
WITHIN_S = 30
METRIC = re.compile(r"`(trunkline_[a-z_]+)")


def runnable(page: Path) -> list[Snippet]:
    """Its programs and commands that are to run."""
    return [snippet for snippet in snippets(page) if snippet.runs]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all pages, as a reader would have."""
    running = Server(tmp_path_factory.mktemp("docs"), "--http-listen", "127.0.0.1:0")
    running.start()
    yield running
    running.kill()


def as_printed(snippet: Snippet, server: Server) -> str:
    """Its text, with the addresses of this server."""
    return snippet.text.replace(ADDRESS, server.address).replace(HTTP_ADDRESS, server.http_address())


def run_program(snippet: Snippet, server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    """As a file of its own (Python), or line by line up to the first failure (shell)."""
    text = as_printed(snippet, server)
    command = [sys.executable, "-W", "error", "-c", text] if snippet.language == "python" else ["sh", "-euc", text]
    path = f"{TRUNKLINE.parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=WITHIN_S,
        env={**os.environ, "PATH": path, "TRUNKLINE_ADDRESS": server.address},
    )  # fmt: skip


@pytest.mark.timeout(300)  # each snippet has its own limit
@pytest.mark.parametrize("page", [page for page in [*PAGES, README] if runnable(page)], ids=lambda page: page.name)
def test_a_page_runs_as_printed(page: Path, server: Server, tmp_path: Path) -> None:
    """From its top to its end, as it is read: what stands further down may need what was made above."""
    for number, snippet in enumerate(runnable(page)):
        folder = tmp_path / str(number)
        folder.mkdir()
        run_as_printed(snippet, server, folder)


def run_as_printed(snippet: Snippet, server: Server, folder: Path) -> None:
    if snippet.language == "toml":
        file = folder / "trunkline.toml"
        file.write_text(snippet.text)
        load(ServerConfig, file=file, environment={})
        return
    assert snippet.language in ("python", "sh"), f"{snippet}: no way to run {snippet.language}"
    (folder / "trunkline-data").symlink_to(server.folder / "data")  # where `trunkline serve` keeps it by default
    done = run_program(snippet, server, folder)
    assert done.returncode == 0, f"{snippet}\n{done.stdout}\n{done.stderr}"
    assert done.stdout, f"{snippet} shows a reader nothing"


def test_metrics_that_the_pages_name_are_served(server: Server) -> None:
    with urllib.request.urlopen(f"http://{server.http_address()}/metrics", timeout=WITHIN_S) as answer:
        served = set(re.findall(r"^# TYPE (\w+) ", answer.read().decode(), re.M))
    named = {found[1] for page in PAGES for found in METRIC.finditer(page.read_text())}
    assert len(named) > 10, f"{DOCS}: where have they gone?"
    assert named <= served, named - served
