"""The command line against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.processes import TRUNKLINE, Server, serving, trunkline


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run_json(server: Server, *arguments: str) -> list[dict[str, Any]]:
    done = trunkline("--json", *arguments, address=server.address)
    assert done.returncode == 0, done.stderr
    return lines(done.stdout)


def test_a_program_is_registered_while_it_runs_and_its_exit_code_is_ours(server: Server) -> None:
    script = f"{TRUNKLINE} --json resolve wrapped; echo $PORT $TRUNKLINE_SERVICE; exit 7"
    done = trunkline("register", "wrapped", "--port", "9999", "--version", "1.2.3", "--zone", "a", "--label", "team=x",
                     "--", "sh", "-c", script, address=server.address)  # fmt: skip
    assert done.returncode == 7, done.stderr
    registered, environment = done.stdout.splitlines()
    row = json.loads(registered)
    assert row["endpoints"] == ["127.0.0.1:9999"]
    assert (row["version"], row["zone"], row["labels"], row["status"]) == ("1.2.3", "a", {"team": "x"}, "SERVING")
    assert environment == "9999 wrapped"
    assert run_json(server, "resolve", "wrapped") == []


def test_what_was_published_is_received_and_a_repeat_is_recognised(server: Server) -> None:
    (first,) = run_json(server, "publish", "order.placed", '{"id": 7}', "--id", "e1", "--key", "7")
    (again,) = run_json(server, "publish", "order.placed", '{"id": 7}', "--id", "e1", "--key", "7")
    assert first["duplicate"] is False
    assert first["durability"] == "FSYNCED"
    assert again["duplicate"] is True
    assert again["offset"] == first["offset"]
    (event,) = run_json(server, "subscribe", "order.>", "--from-start", "--count", "1")
    assert event["type"] == "order.placed"
    assert event["data"] == '{"id": 7}'
    assert event["key"] == "7"


def test_lines_of_standard_input_become_events_in_order(server: Server) -> None:
    numbers = "".join(f"{n}\n" for n in range(1200))
    done = trunkline("--json", "publish", "counted", "--lines", address=server.address, input=numbers)
    assert len(lines(done.stdout)) == 1200, done.stderr
    done = trunkline("--json", "subscribe", "counted", "--from-start", "--count", "1200", "--name", "counter",
                     address=server.address)  # fmt: skip
    assert [row["data"] for row in lines(done.stdout)] == [str(n) for n in range(1200)]
    (subscription,) = [s for s in run_json(server, "subscriptions", "list") if s["name"] == "counter"]
    assert subscription["in_flight"] == 0


def test_streams_are_made_listed_and_deleted(server: Server) -> None:
    (made,) = run_json(server, "streams", "create", "audit", "--max-age", "3600", "--sync", "WRITTEN")
    assert made["created"] is True
    assert made["sync"] == "WRITTEN"
    assert "audit" in [row["name"] for row in run_json(server, "streams", "list")]
    run_json(server, "streams", "delete", "audit", "--yes")
    assert "audit" not in [row["name"] for row in run_json(server, "streams", "list")]


def test_a_stream_of_states_shows_the_last_of_each_key(server: Server) -> None:
    (made,) = run_json(server, "streams", "create", "states", "--compact", "--min-lag", "60")
    assert (made["compaction"], made["compacted"]["passes"]) == (
        {"min_lag": "60s", "tombstone_retention": "86400s"},
        "0",
    )
    for data in ("1", "2"):
        run_json(server, "publish", "state", data, "--key", "a", "--stream", "states")
    run_json(server, "publish", "state", "--key", "b", "--tombstone", "--stream", "states")
    rows = run_json(server, "tail", "--stream", "states", "--last-per-key", "--no-follow")
    assert [(row["key"], row["data"], row["attributes"].get("tombstone")) for row in rows] == [
        ("a", "2", None),
        ("b", None, True),
    ]
    rows = run_json(server, "subscribe", "--stream", "states", "--last-per-key", "--count", "2")
    assert [row["offset"] for row in rows] == [1, 2]
    run_json(server, "subscriptions", "create", "follower", "--stream", "states", "--start", "last-per-key")
    assert run_json(server, "seek", "follower", "last-per-key", "--stream", "states")
    for wrong in (
        ("publish", "state", "data", "--key", "a", "--tombstone"),
        ("publish", "state", "--tombstone"),
        ("subscribe", "--from-start", "--last-per-key"),
        ("replay", "--from", "last-per-key"),
        ("streams", "create", "other", "--min-lag", "1"),
    ):
        assert trunkline(*wrong, address=server.address).returncode != 0, wrong


def test_history_tells_who_was_there_and_what_changed(server: Server) -> None:
    trunkline("register", "old", "--port", "1", "--id", "old-1", "--", "true", address=server.address)
    changes = [row for row in run_json(server, "history", "old", "--since", "0") if row["id"] == "old-1"]
    assert changes[0]["what"] == "registered"
    assert changes[-1]["what"] == "deregistered"
    (then,) = run_json(server, "history", "old", "--revision", str(changes[0]["revision"]))
    assert then["id"] == "old-1"
    assert run_json(server, "history", "old") == []


def test_a_watch_shows_what_is_there(server: Server) -> None:
    watch = [str(TRUNKLINE), "--json", "watch", "late", "--count", "1"]
    done = trunkline("register", "late", "--port", "1", "--id", "late-1", "--", *watch, address=server.address)
    assert done.returncode == 0, done.stderr
    (seen,) = lines(done.stdout)
    assert seen["id"] == "late-1"
    assert seen["change"] == "present"


def test_tokens_are_shown_once_and_revoked(server: Server) -> None:
    (made,) = run_json(server, "token", "create", "--role", "reader", "--for-namespace", "shop")
    (listed,) = [row for row in run_json(server, "token", "list") if row["id"] == made["id"]]
    assert "secret" not in listed
    with_token = trunkline("--token", str(made["secret"]), "-n", "shop", "services", address=server.address)
    assert with_token.returncode == 0, with_token.stderr
    elsewhere = trunkline("--token", str(made["secret"]), "-n", "other", "services", address=server.address)
    assert elsewhere.returncode == 1
    assert "permission denied" in elsewhere.stderr
    run_json(server, "token", "revoke", str(made["id"]))
    revoked = trunkline("--token", str(made["secret"]), "-n", "shop", "services", address=server.address)
    assert "unauthenticated" in revoked.stderr


def test_doctor_is_content_and_says_so(server: Server) -> None:
    assert all(row["result"] == "ok" for row in run_json(server, "doctor"))
    away = trunkline("--address", "127.0.0.1:1", "--timeout", "1", "doctor")
    assert away.returncode == 1
    assert "PROBLEM" in away.stdout


def test_the_contract_is_exported_as_an_import_path(tmp_path: Path) -> None:
    done = trunkline("protos", "export", str(tmp_path))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "trunkline/api/v1").iterdir()}
    assert {"registry.proto", "discovery.proto", "events.proto", "admin.proto", "common.proto", "rules.proto"} <= names


BAD_INPUT = [
    (("resolve", "Not A Name"), "service"),
    (("resolve", "cart", "--version", "not-a-range"), "version"),
    (("resolve", "cart", "--label", "novalue"), "--label"),
    (("publish", "bad topic"), "type"),
    (("publish", "a.b", "x", "--stream", "UPPER"), "stream"),
    (("subscribe", "a..b"), "filters"),
    (("history", "--at", "yesterday"), "--at"),
    (("register", "cart", "--port", "1", "--label", "x", "--", "true"), "--label"),
    (("register", "cart", "--port", "1", "--", "/no/such/program"), "PROGRAM"),
    (("register", "cart", "--port", "1", "--host", "0.0.0.0", "--", "true"), "host"),
]


@pytest.mark.parametrize(("arguments", "field"), BAD_INPUT, ids=lambda value: str(value)[:40])
def test_bad_input_is_one_line_and_exit_code_2(server: Server, arguments: tuple[str, ...], field: str) -> None:
    done = trunkline(*arguments, address=server.address)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("registered", "deregistered"))]
    assert len(errors) == 1, done.stderr
    assert field in errors[0]


def test_unknown_settings_are_named_with_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "trunkline.toml"
    config.write_text('listten = "127.0.0.1:0"\n[registry.limits]\ninstances_mx = 3\n')
    done = trunkline("serve", "--config", str(config))
    assert done.returncode == 2
    assert "listten" in done.stderr
    assert "did you mean listen" in done.stderr
    assert "registry.limits.instances_mx" in done.stderr


def test_a_server_others_can_reach_needs_more_than_nothing(tmp_path: Path) -> None:
    done = trunkline("serve", "--listen", "0.0.0.0:0", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "TLS" in done.stderr


def test_a_second_server_on_the_same_folder_is_refused(server: Server) -> None:
    done = trunkline("serve", "--listen", "127.0.0.1:0", "--http-listen", "", "--data", str(server.folder / "data"))
    assert done.returncode == 1
    assert "journal locked" in done.stderr
    assert str(server.process.pid if server.process else "") in done.stderr


def test_init_makes_what_another_machine_needs(tmp_path: Path) -> None:
    folder = tmp_path / "control"
    done = trunkline("--json", "init", str(folder), "--host", "control.example", "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)["admin token, shown only now"]
    assert token not in (folder / "trunkline.toml").read_text()
    assert (folder / "server.key").stat().st_mode & 0o077 == 0
    with serving(tmp_path, "--config", str(folder / "trunkline.toml")) as server:
        ca = ("--ca", str(folder / "ca.pem"))
        assert trunkline(*ca, "--token", token, "status", address=server.address).returncode == 0
        assert "unauthenticated" in trunkline(*ca, "services", address=server.address).stderr
        assert trunkline("--token", token, "--timeout", "2", "services", address=server.address).returncode == 1
        made = trunkline(
            *ca, "--token", token, "--json", "token", "create", "--role", "service", address=server.address
        )
        secret = json.loads(made.stdout)["secret"]
        assert trunkline(*ca, "--token", secret, "publish", "a.b", "1", address=server.address).returncode == 0
        assert "permission denied" in trunkline(*ca, "--token", secret, "token", "list", address=server.address).stderr
    again = trunkline("init", str(folder))
    assert again.returncode == 2
    assert "must not hold" in again.stderr


def test_a_journal_is_checked_shown_backed_up_and_restored(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for n in range(20):
            run_json(server, "publish", "counted", str(n), "--id", str(n)) if n % 5 == 0 else None
        live = trunkline("--json", "journal", "backup", str(tmp_path / "data"), str(tmp_path / "backup"))
        assert live.returncode == 0, live.stderr
        run_json(server, "publish", "counted", "late")
    checked = trunkline("--json", "journal", "check", str(tmp_path / "data"))
    assert checked.returncode == 0, checked.stderr
    streams = {row["stream"]: row for row in lines(checked.stdout)}
    assert streams["default/events"]["records"] == 5
    shown = lines(trunkline("--json", "journal", "show", str(tmp_path / "data"), "trunkline.control").stdout)
    assert shown[0]["topic"] == "node.started"
    restored = tmp_path / "restored"
    restored.mkdir()
    done = trunkline("journal", "restore", str(tmp_path / "backup"), str(restored / "data"))
    assert done.returncode == 0, done.stderr
    with serving(restored) as server:
        events = run_json(server, "subscribe", "counted", "--from-start", "--count", "4")
        assert [row["data"] for row in events] == ["0", "5", "10", "15"]
    segment = max((tmp_path / "data" / "streams").glob("trunkline.control/*.seg"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 3] ^= 0xFF
    segment.write_bytes(data)
    damaged = trunkline("journal", "check", str(tmp_path / "data"))
    assert damaged.returncode == 1
    assert "trunkline.control" in damaged.stdout + damaged.stderr


def test_an_operator_overrides_and_drains(server: Server) -> None:
    script = (
        f"{TRUNKLINE} override held held-1 NOT_SERVING --reason 'bad disk' >/dev/null && "
        f"{TRUNKLINE} --json resolve held --status NOT_SERVING && "
        f"{TRUNKLINE} --json override held held-1 CLEAR >/dev/null && "
        f"{TRUNKLINE} --json drain held held-1 --limit 5 && {TRUNKLINE} --json resolve held --status DRAINING"
    )
    done = trunkline(
        "register", "held", "--port", "1", "--id", "held-1", "--", "sh", "-c", script, address=server.address
    )
    assert done.returncode == 0, done.stderr
    overridden, drained, draining = lines(done.stdout)
    assert overridden["reason"] == "override: bad disk"
    assert drained["complete"] is True
    assert draining["id"] == "held-1"
    (paused,) = run_json(server, "end-pause")
    assert paused["expired"] == 0
    unknown = trunkline("override", "held", "nobody", "DRAINING", address=server.address)
    assert unknown.returncode == 1
    assert "instance not found" in unknown.stderr
