"""The pages of docs/ say what the code says, lead somewhere, and have no program that nobody runs."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository.doc_pages import DOCS, PAGES, snippets

from trunkline.client import ClientOptions
from trunkline.client.outbox import Outbox, RelayOptions
from trunkline.client.outbox._postgres import POLL_INTERVAL_S as POSTGRES_POLL_S
from trunkline.client.outbox._sqlite import POLL_INTERVAL_S as SQLITE_POLL_S
from trunkline.core.cloudevent import ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_MAX, EVENT_BYTES_MAX
from trunkline.core.errors import leaf_errors
from trunkline.core.model import TTL_MS_DEFAULT, TTL_MS_MAX, TTL_MS_MIN
from trunkline.core.wire import EVENTS_MAX
from trunkline.server.discovery.watch_config import CREDIT_DEFAULT, WatchConfig
from trunkline.server.events import bounds, settings
from trunkline.server.events.session import SUBSCRIPTIONS_PER_SESSION_MAX
from trunkline.server.events.streams import StreamsConfig
from trunkline.server.events.subscriptions import SubscriptionsConfig
from trunkline.server.journal.control.node import ControlConfig
from trunkline.server.journal.log import LogConfig
from trunkline.server.registry.config import ExpiryConfig, RegistryLimits
from trunkline.server.registry.guard import GuardConfig
from trunkline.server.schedules.config import SchedulesConfig
from trunkline.server.schedules.spec import EVENT_BYTES_MAX as SCHEDULED_EVENT_BYTES_MAX
from trunkline.server.security.authority import CERTIFICATE_DAYS
from trunkline.server.security.tokens import TOKENS_MAX
from trunkline.server.transport.config import TransportConfig

ROOT = DOCS.parent
TOOLS = ROOT / "tools"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:bench|client|core|docs|examples|protos|server|tests|tools)/[\w./*-]*)`")
BARE_ERROR = re.compile(r"`([A-Z]+_[A-Z_]+)`")
OTHER_WORDS = {
    # Statuses and alarms stand in capitals, too.
    "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE", "DATA_LOSS",
    "EXPIRY_PAUSED", "CONTROL_STREAM_FAILED", "STREAM_FAILED", "EVENTS_SET_ASIDE", "EVENTS_DEAD_LETTERED",
    "PROBER_DOUBTED", "NOT_SERVING",
    "SCHEDULES_FAILED", "MISFIRE_SKIP", "WEBHOOK_FAILING",
}  # fmt: skip
ALARM = re.compile(r'"([A-Z_]+_(?:PAUSED|FAILED|FAILING|ASIDE|DOUBTED|LETTERED))"')


def tool(name: str) -> dict[str, object]:
    return runpy.run_path(str(TOOLS / f"{name}.py"))


def test_settings_are_those_of_the_code() -> None:
    page = tool("settings_page")["page"]
    assert callable(page)
    assert (DOCS / "settings.md").read_text() == page(), "run: .venv/bin/python tools/settings_page.py"


def test_every_setting_says_what_it_means() -> None:
    rows = [line.split(" | ") for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert not [row[0] for row in rows if row[3].strip(" |") == ""]


def test_errors_are_those_of_the_code() -> None:
    page = tool("errors_table")["page"]
    assert callable(page)
    text = (DOCS / "clients.md").read_text()
    assert text == page(text), "run: .venv/bin/python tools/errors_table.py"
    assert not [code for code in leaf_errors() if f"\n| `{code}` | " not in text]


def test_policy_fields_are_those_of_the_contract() -> None:
    page = tool("policy_fields")["page"]
    assert callable(page)
    text = (DOCS / "traffic.md").read_text()
    assert text == page(text), "run: .venv/bin/python tools/policy_fields.py"
    rows = re.findall(r"^\| `\w+` \| .+ \| (.*) \|$", text.partition("## All fields")[2], re.M)
    assert len(rows) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_page_and_the_readme_names_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    assert not [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index]
    assert "(docs/README.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_program_runs_or_says_why_not(page: Path) -> None:
    """tests/integration/test_docs_snippets.py runs them."""
    assert not [str(snippet) for snippet in snippets(page) if snippet.runs is None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_errors_and_alarms_that_are_named_exist(page: Path) -> None:
    known = leaf_errors().keys() | OTHER_WORDS
    named = BARE_ERROR.findall(page.read_text())
    assert not [word for word in named if word not in known and not word.startswith("TRUNKLINE_")]


def test_alarms_are_those_of_the_code() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    raised = set(ALARM.findall(sources))
    text = (DOCS / "operating.md").read_text()
    explained = set(re.findall(r"^\| `([A-Z_]+)` \| ", text.partition("## Alarms")[2].partition("\n## ")[0], re.M))
    assert raised == explained


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    missing = [path for path in PATH.findall(text) if not any(ROOT.glob(path))]
    missing += [path for path in LINK.findall(text) if "://" not in path and not (ROOT / path).exists()]
    assert not missing


def test_the_outboxs_table_is_that_of_the_code() -> None:
    page, outbox = (DOCS / "outbox.md").read_text(), Outbox(source="/shop")
    assert outbox.sql("postgresql") in page
    assert outbox.sql("sqlite") in page


def test_guarantees_have_the_numbers_of_the_architecture() -> None:
    names = dict(re.findall(r"^\| (G\d+) \| ([\w ]+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.M))
    assert len(names) == 12
    checked = re.findall(r'"""(G\d+) ([\w ]+)', (ROOT / "tests/guarantees.py").read_text())
    assert len(checked) > 8
    assert not [(number, name) for number, name in checked if name.lower().split()[0] != names[number].split()[0]]


def numbers() -> Iterator[tuple[str, str]]:
    """(page, what stands there), made of the code's own numbers."""
    registry, guard, expiry = RegistryLimits(), GuardConfig(), ExpiryConfig()
    instances = (registry.instances_max, registry.namespace_instances_max, registry.service_instances_max)
    streams, watches = StreamsConfig(), WatchConfig()
    yield "operating.md", "| instances: in all, of a namespace, of a service | {:,}, {:,}, {:,} |".format(*instances)
    yield "operating.md", f"| TTL | {TTL_MS_MIN // 1_000} s to {TTL_MS_MAX // 1_000} s |"
    yield "operating.md", f"on one stream | {watches.watches_max:,}, {watches.watches_per_connection_max:,} |"
    yield "operating.md", f"of a namespace | {streams.streams_max:,}, {streams.streams_per_namespace_max:,} |"
    yield "operating.md", f"of a stream | {SubscriptionsConfig().subscriptions_per_stream_max:,} |"
    yield "operating.md", f"on one Subscribe stream | {SUBSCRIPTIONS_PER_SESSION_MAX:,} |"
    yield (
        "operating.md",
        f"| {EVENTS_MAX:,}, {EVENT_BYTES_MAX >> 20} MiB, {TransportConfig().receive_message_bytes_max >> 20} MiB |",
    )
    yield "operating.md", f"| set-aside events of a subscription | {bounds.SET_ASIDE_MAX:,} |"
    schedules = SchedulesConfig()
    bytes_max = schedules.event_bytes_per_namespace_max >> 20
    yield (
        "operating.md",
        f"| schedules of a namespace, bytes of their events | {schedules.schedules_per_namespace_max:,}, {bytes_max} MiB |",
    )
    yield "events.md", f"At least {schedules.interval_s_min:g} s (`schedules.interval_s_min`)"
    yield "events.md", f"a time that is more than {schedules.misfire_after_s:g} s ago is passed over"
    yield "events.md", f"when the schedule is made, and to {SCHEDULED_EVENT_BYTES_MAX >> 10} KiB"
    yield "operating.md", f"| tokens | {TOKENS_MAX:,} |"
    yield "operating.md", f"Control records are kept {ControlConfig().history_retention_s // 86_400} days"
    yield "operating.md", f"(up to {LogConfig().recent_bytes_max >> 20} MiB, and as much again"
    yield "operating.md", f"a server certificate ({CERTIFICATE_DAYS} days)"
    yield (
        "services.md",
        f"more than {guard.lapsed_percent_max} % of a namespace's leases, and at least {guard.lapses_min}, lapse",
    )
    yield "services.md", f"silent for {guard.silent_percent} % of their TTL"
    yield "services.md", f"for {guard.stale_retention_ms // 60_000} minutes at most"
    yield (
        "services.md",
        f"up to {expiry.jitter_ms_max / 1_000:g} s, a look every {expiry.tick_ms / 1_000:g} s, {expiry.read_ms / 1_000:g} s in",
    )
    yield "services.md", f"{TTL_MS_DEFAULT // 1_000} s unless asked otherwise"
    yield "services.md", f"after {ClientOptions().stale_after_s:g} s of silence"
    yield "services.md", f"until their timeout ({ClientOptions().timeout_s:g} s)"
    yield "services.md", f"its credit ({CREDIT_DEFAULT} events)"
    yield "services.md", f"nothing changed for {watches.bookmark_interval_ms // 1_000} s"
    yield "events.md", f"| {settings.DEDUPE_WINDOW_NS // 60_000_000_000} minutes, {settings.DEDUPE_IDS:,} |"
    yield "events.md", f"At most {ClientOptions().requests_max:,} requests of a connection wait"
    relay = RelayOptions()
    yield "outbox.md", f"| `--batch` | {relay.batch_events} | events in one request; with {relay.batch_bytes >> 20} MiB"
    yield "outbox.md", f"({relay.backoff.initial_backoff_s:g} s to {relay.backoff.max_backoff_s:g} s)"
    yield "outbox.md", f"| `--poll` | {SQLITE_POLL_S:g} s, {POSTGRES_POLL_S:g} s | SQLite, PostgreSQL |"
    yield "outbox.md", f"({settings.DEDUPE_WINDOW_NS // 60_000_000_000} minutes and {settings.DEDUPE_IDS:,} ids"
    yield "events.md", f"| `ack_deadline` | {settings.ACK_DEADLINE_MS // 1_000} s |"
    yield "events.md", f"| `max_deliveries` | {settings.MAX_DELIVERIES} |"
    yield "events.md", f"| `max_in_flight` | {settings.MAX_IN_FLIGHT:,} |"
    yield "events.md", f"At most {ATTRIBUTES_MAX} attributes, with names of at most {ATTRIBUTE_NAME_BYTES_MAX} bytes"


@pytest.mark.parametrize(("page", "text"), list(numbers()))
def test_numbers_are_those_of_the_code(page: str, text: str) -> None:
    assert text in " ".join((DOCS / page).read_text().split())
