#!/bin/sh
# Make .venv with everything the project needs. System packages are installed when this user may; otherwise they are
# named in one line.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build

need=""
command -v cc >/dev/null 2>&1 || need="$need gcc libc6-dev"
python=""
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    need="$need python3 python3-venv python3-dev"
else
    "$python" -c 'import venv, ensurepip' 2>/dev/null || need="$need python3-venv"
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
        || need="$need python3-dev"
fi
# For the native transport; without it everything else is there, and the server runs on grpc.aio.
if ! { command -v pkg-config >/dev/null 2>&1 && pkg-config --exists libnghttp2; }; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        need="$need libnghttp2-dev pkg-config"
    else
        echo "no native transport: apt-get install libnghttp2-dev pkg-config, then make build" >&2
    fi
fi
if [ -n "$need" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need
        [ -n "$python" ] || python=python3
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            || { echo "trunkline needs Python 3.11 or newer; this system's is older" >&2; exit 1; }
    else
        echo "trunkline needs these packages first: apt-get install$need" >&2
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip
# What the build needs comes first, so that the build can run in this environment and again, quickly, after an edit.
.venv/bin/python - > build/requirements.txt <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
print("\n".join([*project["build-system"]["requires"], *project["project"]["dependencies"],
                 *project["project"]["optional-dependencies"]["dev"]]))
PY
.venv/bin/python -m pip install --quiet -r build/requirements.txt
# Without warnings: setuptools tells everybody who installs in place that this is no release.
PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --no-build-isolation --editable .
