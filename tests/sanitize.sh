#!/usr/bin/env bash
# Runs the tests of a program under NVIDIA's compute-sanitizer, each test a process. Exit status 1 if a tool
# reported anything, or did not end.
set -euo pipefail

usage() {
    cat <<'HELP'
usage: tests/sanitize.sh [option...] PROGRAM [TEST...]

Runs the tests of PROGRAM (build/release/tests/gg-tests-cuda, build/release/tests/cuda/gg-tests-device) on the
first GPU under compute-sanitizer, each test a process, several at a time; those tagged [alone] one after the
other, when the rest have ended. TEST is a name, a pattern or a tag as Catch2 has them.

  --tools LIST     of memcheck,initcheck,racecheck,synccheck (all)
  --jobs N         processes at a time (4)
  --seconds N      for one test (900)
  --log FOLDER     where the tools' words go (build/logs/sanitize)

Prints a line for each run: the tool, its outcome, seconds, the test. Outcomes: clean; "N reports";
"N not tracked" (launches for which the tool had no memory); "no end" (in --seconds); "failed" (the tool reports
nothing, but the test did not pass: see its log).
Exit status: 0 all clean, 1 not all, 2 usage.
HELP
}

# What a test provokes on purpose and checks itself is no report. synccheck must be told of the barriers of a
# block: 16 warps have a ring each. A step's launches are not waited for, and each of them takes memory of
# the tool's until it has been.
options_of() {
    case $1 in
        memcheck) printf '%s\n' --report-api-errors=no ;;
        racecheck) printf '%s\n' --racecheck-num-workers=2 ;;
        synccheck) printf '%s\n' --num-cuda-barriers=512 ;;
    esac
    printf '%s\n' --require-cuda-init=no --check-exit-code=no --show-backtrace=device --force-synchronization-limit=64
}

# run_one TOOL TEST: one run, one line.
run_one() {
    local tool=$1 test=$2 begin=$SECONDS status=0 outcome reports untracked log options
    log=$GG_SANITIZE_LOGS/$tool-$(printf '%s' "$test" | tr -c 'A-Za-z0-9\n' '_').log
    mapfile -t options < <(options_of "$tool")
    # Catch2 takes a comma for "or" and brackets for a tag.
    timeout "$GG_SANITIZE_SECONDS" compute-sanitizer --tool="$tool" "${options[@]}" \
        "$GG_SANITIZE_PROGRAM" "$(printf '%s' "$test" | sed 's/[],[]/\\&/g')" >"$log" 2>&1 </dev/null || status=$?
    reports=$(sed -nE 's/.*(ERROR SUMMARY|RACECHECK SUMMARY): ([0-9]+) .*/\2/p' "$log" | awk '{n += $1} END {print n + 0}')
    untracked=$(grep -c "didn't track the launch" "$log" || true)
    if ! grep -q SUMMARY "$log"; then
        outcome="no end"
        [ "$status" -eq 124 ] || outcome="status $status"
    elif [ "$reports" -gt 0 ]; then
        outcome="$reports reports"
    elif [ "$untracked" -gt 0 ]; then
        outcome="$untracked not tracked"
    elif [ "$status" -ne 0 ]; then
        outcome=failed
    else
        outcome=clean
    fi
    printf '%-9s  %-12s  %4d s  %s\n' "$tool" "$outcome" $((SECONDS - begin)) "$test"
}

# run_all JOBS TEST...: every tool on every test.
run_all() {
    local jobs=$1 tool
    shift
    [ $# -gt 0 ] || return 0
    for tool in ${tools//,/ }; do printf "$tool\n%s\n" "$@"; done |
        xargs -d '\n' -n 2 -P "$jobs" bash -c 'run_one "$@"' run_one
}

# names SPECIFICATION: of tests, one a line.
names() {
    local list=(--list-tests --verbosity quiet) # Catch2 version 3
    if "$program" --help | grep -e --list-test-names-only >/dev/null; then list=(--list-test-names-only); fi
    { "$program" "${list[@]}" "$1" || true; } | sed 's/^ *//; /^$/d'
}

tools=memcheck,initcheck,racecheck,synccheck jobs=4 seconds=900
logs=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/build/logs/sanitize
while [ $# -gt 0 ]; do
    case $1 in
        --tools) tools=$2 ;;
        --jobs) jobs=$2 ;;
        --seconds) seconds=$2 ;;
        --log) logs=$2 ;;
        -h | --help) usage && exit 0 ;;
        -*) printf 'unknown option %s (see --help)\n' "$1" >&2 && exit 2 ;;
        *) break ;;
    esac
    shift 2
done
if [ $# -lt 1 ] || [ ! -x "$1" ]; then
    usage >&2
    exit 2
fi
command -v compute-sanitizer >/dev/null || {
    printf 'error: no compute-sanitizer: it is part of the CUDA Toolkit (add its bin folder to PATH)\n' >&2
    exit 1
}
program=$1
shift
mkdir -p "$logs"
export GG_SANITIZE_PROGRAM=$program GG_SANITIZE_LOGS=$logs GG_SANITIZE_SECONDS=$seconds
export -f run_one options_of

[ $# -gt 0 ] || set -- '*'
together=() alone=()
for specification in "$@"; do
    mapfile -t -O ${#together[@]} together < <(names "~[alone]$specification")
    mapfile -t -O ${#alone[@]} alone < <(names "[alone]$specification")
done
results=$logs/results
{
    run_all "$jobs" "${together[@]}"
    run_all 1 "${alone[@]}"
} | tee "$results"
clean=$(grep -c '  clean ' "$results" || true) all=$(wc -l <"$results")
printf '%d of %d runs are clean\n' "$clean" "$all"
[ "$clean" -eq "$all" ] && [ "$all" -gt 0 ]
