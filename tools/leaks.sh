#!/bin/sh
# The tests of core's sessions and of the native transport, in one process, which fail when at their end a session, a
# stream, a box, a call, a connection or a server is alive: see tests/leaks.py.
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- tests/leaks.py tests/fuzz tests/property/test_framing.py tests/property/test_http2.py \
    tests/unit/transport tests/faults/test_hostile_peers_session.py tests/integration/test_chain_calls.py \
    tests/integration/test_chain_streams.py tests/integration/test_discovery.py
PYTHONPATH=tests exec .venv/bin/pytest -q -p leaks -p no:cacheprovider "$@"
