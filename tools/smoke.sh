#!/bin/sh
# The wheel as a user gets it: a clean environment, nothing of the checkout importable, then the smoke tests and the demo.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
.venv/bin/python -m venv "$clean/venv"
"$clean/venv/bin/python" -m pip install --quiet dist/*.whl pytest pytest-asyncio pytest-timeout
mkdir "$clean/work"
cp -r tests/smoke examples "$clean/work"
cd "$clean/work"
"$clean/venv/bin/python" -m pytest -q -p no:cacheprovider smoke
"$clean/venv/bin/python" -m examples.shop.demo
cd "$root"
