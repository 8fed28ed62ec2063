"""`trunkline outbox` as an operator uses it."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.processes import TRUNKLINE, Server, serving, trunkline

from trunkline.client import Event
from trunkline.client.outbox import Outbox


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    made = trunkline("outbox", "sql", "sqlite")
    assert made.returncode == 0, made.stderr
    connection.executescript(made.stdout)
    outbox = Outbox(source="/shop")
    for number in range(3):
        outbox.add(connection, Event(type="order.placed", data=str(number), id=str(number)))
    connection.execute(
        "INSERT INTO trunkline_outbox (source, event_id, event_type, event) VALUES ('/shop', '3', 'order.placed', x'00')"
    )
    connection.commit()
    connection.close()
    return path


def outbox(path: Path, *arguments: str) -> list[dict[str, object]]:
    done = trunkline("--json", "outbox", *arguments, TRUNKLINE_OUTBOX_DATABASE=f"sqlite:///{path}")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def until_nothing_waits(path: Path) -> None:
    deadline = time.monotonic() + 20
    while outbox(path, "status")[0]["waiting"]:
        assert time.monotonic() < deadline


def test_a_relay_publishes_until_sigterm(server: Server, path: Path) -> None:
    assert outbox(path, "status") == [{"waiting": 4, "published": 0, "failed": 0}]
    command = [str(TRUNKLINE), "--json", "--address", server.address, "-n", "shop", "outbox", "relay", "--keep", "60"]
    with subprocess.Popen(
        [*command, "--database", f"sqlite:///{path}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as relay:
        until_nothing_waits(path)
        relay.send_signal(signal.SIGTERM)
        stdout, stderr = relay.communicate(timeout=20)
    assert relay.returncode == 0, stderr
    counts = json.loads(stdout)
    assert (counts["published"], counts["failed"]) == (3, 1)
    assert "row 4 of trunkline_outbox is no event that can be published" in stderr
    assert outbox(path, "status") == [{"waiting": 0, "published": 3, "failed": 1}]
    (failed,) = outbox(path, "failed")
    assert (failed["id"], failed["event_id"]) == (4, "3")
    assert outbox(path, "retry", "4") == [{"waiting_again": 1}]
    read = trunkline("-n", "shop", "--json", "subscribe", "--from-start", "--count", "3", address=server.address)
    assert [json.loads(line)["data"] for line in read.stdout.splitlines()] == ["0", "1", "2"]


def test_sigterm_ends_a_relay_whose_control_plane_is_away(path: Path) -> None:
    command = [
        str(TRUNKLINE),
        "--address",
        "127.0.0.1:1",
        "--timeout",
        "1",
        "outbox",
        "relay",
        "--database",
        f"sqlite:///{path}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as relay:
        assert relay.stderr is not None
        for line in relay.stderr:
            if "events wait: UNREACHABLE" in line:
                break
        relay.send_signal(signal.SIGTERM)
        relay.communicate(timeout=20)
    assert relay.returncode == 0
    assert outbox(path, "status") == [{"waiting": 3, "published": 0, "failed": 1}]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--stream", "nowhere"], 1, "stream not found"),
        (["--table", "elsewhere"], 2, "made before"),
        (["--table", "no name"], 2, "lower-case"),
        (["--batch", "0"], 2, "between 1 and 10000"),
    ],
)
def test_what_was_asked_for_wrongly_ends_it(
    server: Server, path: Path, arguments: list[str], code: int, said: str
) -> None:
    command = "outbox", "relay", "--database", f"sqlite:///{path}", *arguments
    done = trunkline(*command, address=server.address)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    away = f"postgresql://nobody@/shop?host={tmp_path}"
    done = trunkline("--timeout", "5", "outbox", "status", "--database", away)
    assert done.returncode == 1
    assert "the database is away" in done.stderr
    assert trunkline("outbox", "status", "--database", f"sqlite:///{tmp_path}/none.db").returncode == 2
