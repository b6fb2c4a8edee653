#!/usr/bin/env python3
"""Measures what a model's GPU kernels cost at start, and writes bench/results/NAME.json: a list of rows.

    python3 bench/start_time.py -m MODEL.gguf --arch sm_90a

compile-first and compile-cached are `gg compile`, with an empty cache of kernels and with the one that it has just
filled; first-token-cold-cache and first-token-warm-cache, on a machine with a GPU, are `gg run` of one token, likewise.
Each is the wall time of a whole process, the median of 3 rounds; a round begins with an empty cache. The model is
read once before, so that it is in memory. Needs nothing but Python and the command gg.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from compare_llama import output_of, processor
from quality import shown

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROUNDS = 3


def gpu():
    """The first GPU's name, or None."""
    if not shutil.which("nvidia-smi"):
        return None
    listed = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.splitlines()[0].strip() if listed.returncode == 0 and listed.stdout.strip() else None


def timed(command, cache):
    """Seconds that a command takes with a folder as its cache, and its standard output."""
    begin = time.perf_counter()
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace",
                            env={**os.environ, "XDG_CACHE_HOME": cache})
    seconds = time.perf_counter() - begin
    if result.returncode != 0:
        sys.exit(f"{shown(command)} failed ({result.returncode}):\n{result.stderr}")
    return seconds, result.stdout


def check_cached(output, cached):
    """Ends the program unless all kernels of a `gg compile --json` came from the cache, or none did."""
    found = {unit["cached"] for target in json.loads(output)["targets"] for unit in target["units"]}
    if found != {cached}:
        sys.exit(f"expected units that are {'' if cached else 'not '}cached, found {found}")


def rounds(name, command, check):
    """Median seconds with an empty cache and with the one that this left."""
    first, second = [], []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as cache:
            for times, cached in ((first, False), (second, True)):
                seconds, output = timed(command, cache)
                check(output, cached)
                times.append(seconds)
        print(f"{name}, round {number + 1}/{ROUNDS}: {first[-1]:.2f} s, then {second[-1]:.2f} s", file=sys.stderr)
    return statistics.median(first), statistics.median(second)


def measure(options, model):
    """{test: seconds} of one model."""
    with model.open("rb") as file:
        while file.read(1 << 24):  # into the page cache
            pass
    compile_it = [options.gg, "compile", model, "--json"] + (["--arch", options.arch] if options.arch else [])
    first, cached = rounds(f"{model.name}, compile", compile_it, check_cached)
    tests = {"compile-first": first, "compile-cached": cached}
    if gpu():
        run_it = [options.gg, "run", "-m", model, "--device", "cuda", "-p", "x", "-n", 1]
        cold, warm = rounds(f"{model.name}, first token", run_it, lambda output, cached: None)
        tests |= {"first-token-cold-cache": cold, "first-token-warm-cache": warm}
    return tests


def commit_here():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        sys.exit("there is no git repository here: name the commit with --commit")
    return output_of(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40"]).strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", dest="models", required=True, action="append", type=pathlib.Path,
                        help="a GGUF file; again for several")
    parser.add_argument("--arch", help="what gg compile compiles for; without it, the GPU here")
    parser.add_argument("--gg", type=pathlib.Path, default=ROOT / "build/release/runner/gg")
    parser.add_argument("--commit", help="what was built, where git cannot tell")
    parser.add_argument("--name", default="start-time", help="of the file in bench/results")
    options = parser.parse_args()

    common = {
        "device": gpu() or processor(),
        "commit": options.commit or commit_here(),
        "command": shown(["python3", "bench/start_time.py", *(part for model in options.models for part in ("-m", model)),
                          *(["--arch", options.arch] if options.arch else []), "--name", options.name]),
    }
    rows = [{**common, "model": model.name, "test": test, "value": round(seconds, 3), "unit": "s"}
            for model in options.models for test, seconds in measure(options, model).items()]
    for row in rows:
        print(f"{row['model']:40} {row['test']:24} {row['value']:9.3f} s")
    path = ROOT / "bench/results" / f"{options.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
