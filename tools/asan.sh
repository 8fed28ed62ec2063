#!/bin/sh
# Tests of what core does with bytes of peers, with those modules built by gcc under AddressSanitizer and
# UndefinedBehaviorSanitizer in build/asan.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
python=.venv/bin/python
package=build/asan/root/trunkline
include=$($python -c 'import sysconfig; print(sysconfig.get_path("include"))')
suffix=$($python -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
built="attributes cloudevent framing http2 http2_stream http2_wire jsontext leases registrations settlements wire"
mkdir -p "$package/core"
for part in api server client cli; do ln -sfn "$root/build/pkgroot/trunkline/$part" "$package/$part"; done
for file in core/*.py core/*.so; do
    name=$(basename "$file" "$suffix")
    case " $built " in *" $name "*) ;; *) ln -sfn "$root/$file" "$package/core/" ;; esac
done
for module in $built; do
    source=build/cython/core/$module.c
    [ "$package/core/$module$suffix" -nt "$source" ] && continue
    gcc -g -O1 -fPIC -shared -w -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer \
        -I"$include" "$source" -o "$package/core/$module$suffix" $(pkg-config --cflags --libs libnghttp2)
done
[ $# -gt 0 ] || set -- tests/fuzz tests/property/test_attributes.py tests/property/test_framing.py tests/property/test_http2.py \
    tests/property/test_jsontext.py tests/property/test_registrations.py tests/property/test_registry_leases.py \
    tests/property/test_settlements.py tests/property/test_wire.py tests/faults/test_hostile_peers_session.py
preload=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
exec env LD_PRELOAD="$preload" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
    PYTHONPATH="$root/build/asan/root" .venv/bin/python -m pytest -q -p no:cacheprovider "$@"
