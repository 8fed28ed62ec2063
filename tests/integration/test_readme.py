"""The README's first program and its second machine; the make targets that the pages name; the compose file."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from integration.processes import READY, TRUNKLINE, Server, serving, trunkline
from repository.doc_pages import README, snippets

ROOT = README.parent
PAGES = ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"]
DEFAULT_ADDRESS = "127.0.0.1:7400"
PROGRAM_LINES_MAX = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def block(language: str, holding: str) -> str:
    (found,) = [s.text for s in snippets(README) if s.language == language and holding in s.text]
    return found


def test_the_first_program_is_short_and_says_what_it_did(server: Server, tmp_path: Path) -> None:
    program = block("python", "asyncio.run")
    ast.parse(program)
    assert len([line for line in program.splitlines() if line.strip()]) <= PROGRAM_LINES_MAX
    assert program.count(DEFAULT_ADDRESS) == 1
    command = [sys.executable, "-W", "error", "-c", program.replace(DEFAULT_ADDRESS, server.address)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["serving: ['127.0.0.1:8080']", "received: cart.opened {'id': 7}"]
    assert done.stderr == ""


def test_the_shell_commands_show_what_they_are_there_for(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        shell = block("sh", "trunkline services").replace("sleep 5 &", "sleep 5 &\nsleep 1.5")
        environment = {
            "PATH": f"{TRUNKLINE.parent}:{os.environ['PATH']}",
            "TRUNKLINE_ADDRESS": server.address,
            "COLUMNS": "200",
        }
        done = subprocess.run(
            ["sh", "-euc", f"{shell}\nwait"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **environment},
        )
    assert done.returncode == 0, done.stderr
    assert "1.4.0" in done.stdout
    assert "127.0.0.1:8080" in done.stdout
    assert '{"id": 7}' in done.stdout
    assert "order.placed" in done.stdout
    assert "PROBLEM" not in done.stdout, "doctor"


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"^make ([a-z]+)\b", text, re.M)) | set(re.findall(r"`make ([a-z]+)", text))
    assert named <= make_targets()
    assert named or page == "ARCHITECTURE.md"


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith("make")}
    assert {"demo", "test", "check", "fix", "bench", "wheel", "mutants", "simulate", "powercut"} <= listed


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#\s]+)", text)
    missing = [link for link in links if not link.startswith("http") and not (ROOT / link).exists()]
    assert not missing
    paths = re.findall(r"`((?:core|server|client|tests|protos|examples|docs|tools)/[\w/.*-]*)`", text)
    missing = [path for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing


class Control:
    """`trunkline init` and the server that runs on what it made."""

    def __init__(self, folder: Path) -> None:
        done = trunkline("--json", "init", str(folder), "--host", "control", "--listen", "127.0.0.1:0")
        assert done.returncode == 0, done.stderr
        (self.token,) = [value for name, value in json.loads(done.stdout).items() if "token" in name]
        self.ca = str(folder / "ca.pem")
        self.server = subprocess.Popen(
            [TRUNKLINE, "serve", "--config", folder / "trunkline.toml", "--http-listen", ""],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.server.stdout is not None
        found = READY.search(self.server.stdout.readline())
        assert found
        self.address = found[1].rstrip(",")

    def resolve(self, service: str) -> list[dict[str, object]]:
        known = ("--json", "--address", self.address, "--ca", self.ca, "--token", self.token)
        return [json.loads(line) for line in trunkline(*known, "resolve", service).stdout.splitlines()]

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        assert self.server.stdout is not None
        self.server.stdout.close()


def test_a_second_machine_needs_what_init_makes(tmp_path: Path) -> None:
    """The block of `trunkline init` and `serve --config`, and then the doctor with the token that was shown once."""
    init, serve = block("sh", "trunkline init").splitlines()
    assert serve == "trunkline serve --config ./control/trunkline.toml"
    assert init.partition("#")[0].split() == ["trunkline", "init", "./control", "--host", "control.example"]
    folder = tmp_path / "control"
    control = Control(folder)
    try:
        assert control.token not in (folder / "trunkline.toml").read_text(), "shown once, kept as a hash"
        for name in ("ca.key", "server.key", "trunkline.toml"):
            assert (folder / name).stat().st_mode & 0o077 == 0, f"{name} is for its owner alone"
        known = ("--address", control.address, "--ca", control.ca)
        with_token = trunkline(*known, "--token", control.token, "doctor")
        assert with_token.returncode == 0, with_token.stdout + with_token.stderr
        without = trunkline(*known, "--timeout", "3", "services")
        assert without.returncode == 1
        assert "unauthenticated" in without.stderr
    finally:
        control.close()
    assert trunkline("init", str(folder)).returncode == 2, "nothing that is there is overwritten"


def compose_command(service: str) -> list[str]:
    """The words behind `exec` in a service's shell command."""
    file = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())
    shell, option, script = shlex.split(file["services"][service]["command"])
    assert (shell, option) == ("sh", "-c")
    return shlex.split(script.partition("exec ")[2])


def test_the_compose_file_has_a_control_plane_and_a_program_that_registers(tmp_path: Path) -> None:
    assert compose_command("control") == ["trunkline", "serve", "--config", "${PWD}/control/trunkline.toml"]
    file = yaml.safe_load((ROOT / "examples" / "compose.yaml").read_text())
    assert set(file["services"]) == {"control", "web"}
    assert file["services"]["web"]["depends_on"] == {"control": {"condition": "service_healthy"}}
    control = Control(tmp_path / "control")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    try:
        known = {"/control/ca.pem": control.ca, "8000": port, "trunkline": str(TRUNKLINE), "python": sys.executable}
        environment = {"TRUNKLINE_ADDRESS": control.address, "TRUNKLINE_TOKEN": control.token}
        with subprocess.Popen(
            [known.get(word, word) for word in compose_command("web")],
            env={**os.environ, **environment}, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        ) as web:  # fmt: skip
            try:
                deadline = time.monotonic() + 20
                while not (rows := control.resolve("web")) and time.monotonic() < deadline:
                    assert web.poll() is None
                assert [row["endpoints"] for row in rows] == [[f"127.0.0.1:{port}"]]
            finally:
                web.terminate()
            web.wait(20)
        assert control.resolve("web") == [], "drained and gone when the program ends"
    finally:
        control.close()
