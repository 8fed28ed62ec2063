"""h2spec, the conformance test of HTTP/2 and HPACK, against the native transport."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from interop.conformance import results
from interop.conformance.h2spec import DEVIATIONS, H2SPEC, SECTIONS
from interop.conformance.harness import interop_server, need_transport
from interop.conformance.programs import go_tool

pytestmark = pytest.mark.timeout(420)  # the compiler

H2SPEC_PROGRAM = "github.com/summerwind/h2spec/cmd/h2spec"
NO_TEXT = re.compile(rb"[\x00-\x08\x0b-\x1f]")
CLOSED_BY_RESET = re.compile(r"^Connection closed$(?s:.*)connection reset by peer", re.M)
"""This version of h2spec knows a connection that was closed with unread bytes for none that was closed."""

Case = tuple[str, str]


def outcomes(report: Path) -> dict[Case, str]:
    """(section, case): what is wrong with it; empty when nothing is."""
    found = {}
    text = NO_TEXT.sub(b" ", report.read_bytes())  # it quotes frames as they are
    for case in ElementTree.fromstring(text).iter("testcase"):
        wrong = "\n".join(child.text or child.tag for child in case)
        found[case.attrib["package"], case.attrib["classname"]] = "" if CLOSED_BY_RESET.search(wrong) else wrong
    return found


def test_h2spec(tmp_path: Path) -> None:
    need_transport("native")
    program, report = go_tool(H2SPEC_PROGRAM), tmp_path / "report.xml"
    with interop_server("native", "--any-request") as server:
        where = ("--port", str(server.port), "--junit-report", str(report))
        subprocess.run([program, "--strict", *where], capture_output=True, text=True, timeout=180, check=False)
        server.grow_quiet()
    found = outcomes(report)
    assert Counter(section for section, _ in found) == {section: count for section, (_, count) in SECTIONS.items()}
    failed = {case: wrong for case, wrong in found.items() if wrong and case not in DEVIATIONS}
    for section in SECTIONS:
        is_failed = any(case[0] == section for case in failed)
        results.record(H2SPEC.name, "native", section, results.FAILED if is_failed else results.PASSED)
    assert not failed
    assert not [case for case in DEVIATIONS if not found[case]], "passes now: take it out of the table"
