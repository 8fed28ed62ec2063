#!/bin/sh
# Coverage-guided fuzzing of what peers send: fuzz.sh [SECONDS [TARGET...]]. The modules of core that read it are built with
# AddressSanitizer and libFuzzer's counters under build/fuzz, beside a program that embeds Python. What is found beyond the
# committed corpus stays in build/fuzz/corpus; an input that fails is left in build/fuzz and named. FUZZ_SEED makes a run
# that can be repeated, as far as its time allows; without it each is another.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- session inbox headers
clang=${CLANG:-clang}
out=build/fuzz
python=.venv/bin/python
root=$PWD

mkdir -p "$out"
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return 0; }' \
    | "$clang" -x c -fsanitize=fuzzer,address -o "$out/probe" - 2>"$out/probe.log"; then
    echo "fuzz: needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev" >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi

# A package like the installed one, but for the modules that are fuzzed.
package=$out/root/trunkline
mkdir -p "$package/core"
for part in api server client cli; do ln -sfn "$root/build/pkgroot/trunkline/$part" "$package/$part"; done
include=$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')
library=$($python -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
version=$($python -c 'import sysconfig; print(sysconfig.get_config_var("LDVERSION"))')
suffix=$($python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
fuzzed="framing http2 http2_stream http2_wire"
for file in core/*.py core/*.so; do
    name=$(basename "$file" "$suffix")
    case " $fuzzed " in *" $name "*) ;; *) ln -sfn "$root/$file" "$package/core/" ;; esac
done
for module in $fuzzed; do
    source=build/cython/core/$module.c
    [ "$package/core/$module$suffix" -nt "$source" ] && continue
    "$clang" -g -O1 -fPIC -shared -w -fsanitize=fuzzer-no-link,address -fno-omit-frame-pointer -I"$include" \
        "$source" -o "$package/core/$module$suffix" $(pkg-config --cflags --libs libnghttp2)
done
"$clang" -g -O1 -fsanitize=fuzzer,address -rdynamic -I"$include" tests/fuzz/main.c -o "$out/fuzz" \
    -L"$library" -Wl,-rpath,"$library" "-lpython$version"

# Blocks come from malloc, so that AddressSanitizer sees their ends; what Python keeps until its end is no leak.
export PYTHONHASHSEED=0 PYTHONMALLOC=malloc PYTHONNOUSERSITE=1 ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb=64:malloc_context_size=2
PYTHONHOME=$($python -c 'import sys; print(sys.base_prefix)')
PYTHONPATH=$root/$out/root:$root/tests:$($python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
export PYTHONHOME PYTHONPATH
each=$((seconds / $#))
for target in "$@"; do
    mkdir -p "$out/corpus/$target"
    echo "fuzz: $target for $each s"
    FUZZ_TARGET=$target "$out/fuzz" "$out/corpus/$target" "tests/fuzz/corpus/$target" -max_total_time="$each" -timeout=10 \
        -seed="${FUZZ_SEED:-0}" \
        -rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 -artifact_prefix="$out/$target-" >"$out/$target.log" 2>&1 \
        || { tail -n 60 "$out/$target.log" >&2; exit 1; }
    grep -E 'INITED|stat::number_of_executed|stat::average|stat::new_units' "$out/$target.log"
    grep -E '^#[0-9]+.*cov:' "$out/$target.log" | tail -n 1
done
