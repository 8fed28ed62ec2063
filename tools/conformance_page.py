"""Write docs/transport-conformance.md from the cases of the transport tests: python tools/conformance_page.py

The cases and their words are those of tests/interop/conformance; how each ended is what its last run left in build/. A case
that was not run here keeps what the page says of it. A test compares the page with the cases.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from interop.conformance import results  # noqa: E402
from interop.conformance.cases import GRPC_GO, GRPC_GO_TLS, GRPC_JS, GRPCIO_ASYNC, GRPCIO_SYNC, Suite  # noqa: E402
from interop.conformance.h2spec import DEVIATIONS, H2SPEC, SECTIONS  # noqa: E402

PAGE = ROOT / "docs" / "transport-conformance.md"
NOT_RUN = "not run"
NOT_MEANT = "-"
INTRODUCTION = """\
<!-- Written by tools/conformance_page.py from tests/interop/conformance and the last run of its tests. Do not edit. -->
# Conformance of the transports

Clients that were written elsewhere call the test service of gRPC's
[interoperability tests](https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md) on either transport:
`native`, on libnghttp2, and `grpcio`, on gRPC's core. After each case the server may have no call open any more.

<!-- not run: needs compilers and package registries -->
```sh
.venv/bin/pytest tests/interop
```

Not shown by any case: that the servicer is told whether a request was compressed, which `client_compressed_unary` and
`client_compressed_streaming` of gRPC's list ask for, and which grpc.aio has no way to say. The bytes on the wire are counted
instead.
"""

Outcome = Callable[[Suite, str, str], str]
"""Of a suite, transport and case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A heading and a table, with columns for each client and transport."""

    title: str
    words: str
    suites: tuple[Suite, ...]

    @property
    def columns(self) -> list[tuple[Suite, str]]:
        return [(suite, transport) for suite in self.suites for transport in suite.transports]

    @property
    def cases(self) -> dict[str, str]:
        return {case: words for suite in self.suites for case, words in suite.cases.items()}


PARTS = (
    Part(
        title="gRPC's own cases",
        words="\n".join(f"- {suite.title}: {suite.about}" for suite in (GRPC_GO, GRPC_GO_TLS)),
        suites=(GRPC_GO, GRPC_GO_TLS),
    ),
    Part(
        title="The same and more from other clients",
        words="\n".join(f"- {suite.title}: {suite.about}" for suite in (GRPC_JS, GRPCIO_SYNC, GRPCIO_ASYNC)),
        suites=(GRPC_JS, GRPCIO_SYNC, GRPCIO_ASYNC),
    ),
    Part(
        title="HTTP/2 and HPACK",
        words=f"{H2SPEC.title}: {H2SPEC.about}",
        suites=(H2SPEC,),
    ),
)


def column_title(suite: Suite, transport: str) -> str:
    return f"{suite.title}, {transport}"


def cell(suite: Suite, transport: str, case: str, outcome: Outcome) -> str:
    """How it ended, or that it is not meant to be run."""
    if case not in suite.cases or (transport, case) in suite.excused:
        return NOT_MEANT
    return outcome(suite, transport, case)


def table(part: Part, outcome: Outcome) -> str:
    """A row for each case."""
    titles = ["case", "what it shows", *(column_title(*column) for column in part.columns)]
    rows = [titles, ["---"] * len(titles)]
    for case, words in part.cases.items():
        rows.append([f"`{case}`", words, *(cell(*column, case, outcome) for column in part.columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def by_reason(reasons: Iterable[tuple[str, str]]) -> str:
    """One line for each reason, with all that it holds for."""
    grouped: dict[str, dict[str, None]] = {}
    for what, why in reasons:
        grouped.setdefault(why, {})[what] = None
    return "\n".join(f"- {', '.join(whats)}: {why}." for why, whats in grouped.items())


def notes(part: Part) -> str:
    """What is not run, or ends otherwise than the client expects, and why."""
    reasons = [(f"`{case}`", why) for suite in part.suites for case, why in suite.left_out.items()]
    for suite in part.suites:
        reasons += [(f"`{case}` on {transport}", why) for (transport, case), why in suite.excused.items()]
    if reasons:
        return f"Not run:\n\n{by_reason(reasons)}"
    if H2SPEC not in part.suites:
        return ""
    count = sum(number for _, number in SECTIONS.values())
    deviations = by_reason((f"{section}, “{case}”", why) for (section, case), why in DEVIATIONS.items())
    return f"Of {count} cases, {len(DEVIATIONS)} end otherwise than h2spec expects:\n\n{deviations}"


def page(outcome: Outcome) -> str:
    """The whole text."""
    parts = [INTRODUCTION]
    for part in PARTS:
        texts = (f"## {part.title}", part.words, table(part, outcome), notes(part))
        parts.append("\n\n".join(filter(None, texts)) + "\n")
    return "\n".join(parts)


def said(text: str) -> Outcome:
    """The outcomes that a page shows."""
    found: dict[tuple[str, str], str] = {}
    titles: list[str] = []
    for line in text.splitlines():
        cells = [one.strip() for one in line.split("|")[1:-1]]
        if cells[:1] == ["case"]:
            titles = cells
        for title, one in zip(titles[2:], cells[2:], strict=False):
            found[title, cells[0].strip("`")] = one
    return lambda suite, transport, case: found.get((column_title(suite, transport), case), NOT_RUN)


def latest(before: Outcome) -> Outcome:
    """The outcomes of the last runs, or those before."""
    return lambda *what: results.recorded(what[0].name, *what[1:]) or before(*what)


if __name__ == "__main__":
    PAGE.write_text(page(latest(said(PAGE.read_text() if PAGE.exists() else ""))))
