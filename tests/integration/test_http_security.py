"""Who may publish over HTTP: tokens, this machine, web pages, and addresses that others can reach."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.processes import TRUNKLINE, Server, serving
from integration.test_http_events import as_headers, event, post, url

from reference import http_events
from trunkline.server.security.tokens import new_secret

SECRETS = {
    name: new_secret(name, lambda count, name=name: name.encode().ljust(count, b"."))  # type: ignore[misc]
    for name in ("service", "reader", "office", "cart", "admin")
}
GRANTS = {
    "service": 'role = "service"',
    "reader": 'role = "reader"',
    "office": 'role = "service"\nnamespaces = ["office"]',
    "cart": 'role = "service"\ntopic_filters = ["cart.>"]',
    "admin": 'role = "admin"',
}
CONFIG = "\n".join(
    f'[[security.tokens]]\nid = "{name}"\nsecret_sha256 = "{SECRETS[name].hash.hex()}"\n{grant}'
    for name, grant in GRANTS.items()
)
PAGE = {"Origin": "http://pages.example"}


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name].token}"}


def started(folder: Path, *options: str) -> Iterator[Server]:
    file = folder / "trunkline.toml"
    file.write_text(CONFIG)
    with serving(folder, "--config", str(file), "--http-listen", "127.0.0.1:0", *options) as running:
        yield running


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As a developer has it: who is on this machine may do anything."""
    yield from started(tmp_path_factory.mktemp("open"))


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As behind a proxy: nobody without a token."""
    folder = tmp_path_factory.mktemp("closed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_SECURITY__LOOPBACK_WITHOUT_CREDENTIALS", "false")
        yield from started(folder)


@pytest.fixture(scope="module")
def insecure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On every address, for everybody."""
    yield from started(tmp_path_factory.mktemp("insecure"), "--insecure", "--http-listen", "0.0.0.0:0")


MATRIX: list[tuple[str, dict[str, str], int, int, int]] = [
    # what is shown; the answer of an open, a closed and an insecure server
    ("nothing", {}, 200, 401, 200),
    ("a service's token", bearer("service"), 200, 200, 200),
    ("an admin's token", bearer("admin"), 200, 200, 200),
    ("a reader's token", bearer("reader"), 403, 403, 403),
    ("a token for other namespaces", bearer("office"), 403, 403, 403),
    ("a token for other topics", bearer("cart"), 403, 403, 403),
    ("a damaged token", {"Authorization": "Bearer tl_service_x"}, 401, 401, 401),
    ("a password", {"Authorization": "Basic dXNlcjpwdw=="}, 401, 401, 401),
    ("an empty header", {"Authorization": ""}, 401, 401, 401),
    ("a page", PAGE, 403, 401, 403),
    ("a page from a file", {"Origin": "null"}, 403, 401, 403),
    ("a page of this machine", {"Origin": "http://127.0.0.1:7401"}, 403, 401, 403),
    ("a page with a token", {**PAGE, **bearer("service")}, 200, 200, 200),
    ("a page with a reader's token", {**PAGE, **bearer("reader")}, 403, 403, 403),
    ("a proxy's word", {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}, 200, 401, 200),
]


@pytest.mark.parametrize(
    ("shown", "on_open", "on_closed", "on_insecure"), [row[1:] for row in MATRIX], ids=[r[0] for r in MATRIX]
)
@pytest.mark.parametrize("kind", ["open", "closed", "insecure"])
async def test_who_may_publish(
    kind: str, shown: dict[str, str], on_open: int, on_closed: int, on_insecure: int, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(f"{kind}_server")
    target = url(server, "shop").replace("0.0.0.0", "127.0.0.1")
    headers, body = http_events.binary(event("1"))
    status, told = await post(target, [*as_headers(headers), *shown.items()], body)
    assert status == {"open": on_open, "closed": on_closed, "insecure": on_insecure}[kind], told
    if status != 200:
        reason = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}[status]
        assert told["details"][0]["reason"] == reason


async def test_who_may_not_publish_is_told_nothing_else(closed_server: Server) -> None:
    """Not what is wrong with the request, nor which streams there are."""
    for stream, headers in (("nowhere", {}), ("events", {"content-type": "application/cloudevents+avro"})):
        status, _ = await post(url(closed_server, "shop", stream), headers, b"{")
        assert status == 401


async def test_a_token_is_checked_for_every_topic_of_a_batch(closed_server: Server) -> None:
    given = {"content-type": "application/cloudevents-batch+json", **bearer("cart")}
    kept, other = event("batch"), event("other")
    kept.type = "cart.filled"
    batch = f"[{http_events.written(kept)},{http_events.written(other)}]"
    status, told = await post(url(closed_server, "shop"), given, batch)
    assert (status, told["details"][0]["reason"]) == (403, "PERMISSION_DENIED")
    status, told = await post(url(closed_server, "shop"), given, f"[{http_events.written(kept)}]")
    assert (status, told["published"][0]["duplicate"]) == (200, False), "nothing of the refused batch was kept"


async def test_a_page_is_not_told_that_it_might(open_server: Server) -> None:
    """No answer bears what browsers look for before they send what is not as plain as a form."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        asked = {**PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "ce-id"}
        async with session.options(url(open_server, "shop"), headers=asked) as answer:
            assert answer.status == 405
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_an_address_that_others_can_reach_is_refused_in_the_words_of_the_grpc_listener(tmp_path: Path) -> None:
    said = []
    for options in (("--http-listen", "0.0.0.0:0"), ("--listen", "0.0.0.0:0")):
        done = subprocess.run(
            [str(TRUNKLINE), "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", *options],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode != 0
        said.append(done.stderr.strip().splitlines()[-1])
    assert "needs TLS" in said[0]
    assert "--insecure" in said[0]
    assert said[0] == said[1]
