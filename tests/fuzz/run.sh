#!/bin/sh
# Builds every fuzz target with clang and runs all of them at once for SECONDS each.
# usage: tests/fuzz/run.sh [SECONDS]      exit code 0: no finding; 1: a finding; 2: it could not be built
set -u
seconds=${1:-60}
case $seconds in '' | *[!0-9]*) echo "usage: $0 [SECONDS]" >&2; exit 2 ;; esac
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/fuzz

if ! command -v clang++ >/dev/null; then
    echo "clang++ is missing: apt-get install clang" >&2
    exit 2
fi
probe=$(mktemp -d) || exit 2
trap 'rm -rf "$probe"' EXIT
printf 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }\n' >"$probe/probe.cpp"
if ! clang++ -fsanitize=fuzzer,address,undefined "$probe/probe.cpp" -o "$probe/probe" 2>"$probe/log"; then
    cat "$probe/log" >&2
    version=$(clang++ -dumpversion | cut -d. -f1)
    echo "clang++ has no fuzzer library: apt-get install libclang-rt-$version-dev (or libclang-rt-dev)" >&2
    exit 2
fi

cmake -S "$root" -B "$build" -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGG_BUILD_FUZZERS=ON \
    -DGG_BUILD_RUNNER=OFF -DGG_BUILD_BENCH=OFF >"$probe/log" 2>&1 || { cat "$probe/log" >&2; exit 2; }
cmake --build "$build" --target gg-fuzzers -j "$(nproc)" >"$probe/log" 2>&1 || { cat "$probe/log" >&2; exit 2; }

bin=$build/tests/fuzz
names=$(cd "$bin" && ls -d gg-fuzz-* 2>/dev/null | sed 's/^gg-fuzz-//')
[ -n "$names" ] || { echo "no fuzz target was built" >&2; exit 2; }
for name in $names; do
    corpus=$build/corpus/$name
    findings=$build/findings/$name
    rm -rf "$findings"
    mkdir -p "$corpus" "$findings"
    if [ -x "$bin/gg-seeds-$name" ]; then "$bin/gg-seeds-$name" "$corpus" || exit 2; fi
    {
        "$bin/gg-fuzz-$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 \
            -print_final_stats=1 -artifact_prefix="$findings/" "$corpus" >"$findings/log" 2>&1
        echo $? >"$findings/status"
    } &
done
wait

failed=0
for name in $names; do
    findings=$build/findings/$name
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$findings/log")
    if [ "$(cat "$findings/status")" = 0 ] && [ -n "$executions" ]; then
        echo "$name: $executions executions in $seconds s, no finding"
    else
        failed=1
        tail -n 60 "$findings/log"
        echo "$name: a finding after ${executions:-?} executions; the input is in $findings"
    fi
done
exit $failed
