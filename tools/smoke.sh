#!/bin/sh
# The wheel as a user gets it: a clean environment, nothing of the checkout importable, then the smoke tests and the demo.
# grpcio-tools is for the examples, which compile their own proto when they start; mypy is for a user's typed program.
set -eu
cd "$(dirname "$0")/.."
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
.venv/bin/python -m venv "$clean/venv"
python=$clean/venv/bin/python
set -- dist/trunkline-*.whl
[ $# = 1 ] && [ -f "$1" ] || { echo "expected one wheel in dist/, found: $*; run \`make wheel\`" >&2; exit 1; }
"$python" -m pip install --quiet --disable-pip-version-check \
    "$1" grpcio-tools pytest mypy types-grpcio types-protobuf
mkdir -p "$clean/work/examples"
cp -R tests/smoke "$clean/work"
cp examples/__init__.py "$clean/work/examples"
cp -R examples/shop "$clean/work/examples"
cd "$clean/work"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
SMOKE_TESTS=1 "$python" -m pytest -q -p no:cacheprovider -W error smoke
"$python" -m examples.shop.demo
