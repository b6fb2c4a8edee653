"""Compares gg's host backend with llama.cpp on the same cores in the same run: SmolLM2-135M-Instruct Q4_1.

Both read a prompt of 512 tokens, then decode 128 tokens greedily after a prompt of 16. Every round is a fresh
process of each program that loads the model, warms up and measures; rounds alternate between the two, so that
a change of the machine's load meets both. Reported: the medians, and the median of the rounds' ratios.

llama.cpp is llama-cpp-python, built from PyPI's source for this processor, without AMX (g++ 12.2 miscompiles
llama.cpp's AMX code). Its flash attention is on: it is faster so. --python names an interpreter that has it;
otherwise one is made in build/llama-venv, which takes some minutes.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEER = "llama-cpp-python==0.3.36"
PROMPT, DECODE_PROMPT, DECODE = 512, 16, 128
CONTEXT = 1024


def make_peer():
    """An interpreter with llama-cpp-python, built once."""
    venv = ROOT / "build" / "llama-venv"
    python = venv / "bin" / "python"
    if not (venv / "done").exists():
        print(f"building {PEER} in {venv} (some minutes)", file=sys.stderr)
        no_amx = "-mno-amx-int8 -mno-amx-tile"
        flags = f"-DGGML_NATIVE=ON '-DCMAKE_C_FLAGS={no_amx}' '-DCMAKE_CXX_FLAGS={no_amx}'"
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-binary", "llama-cpp-python", PEER],
                       check=True, env={**os.environ, "CMAKE_ARGS": flags})
        (venv / "done").touch()
    return python


def measure_peer(model, tokens_file, threads):
    """Runs inside the peer's interpreter: one measurement of llama.cpp, as JSON on stdout."""
    import llama_cpp
    import numpy

    tokens = [int(word) for word in pathlib.Path(tokens_file).read_text().split()]
    llm = llama_cpp.Llama(model, n_ctx=CONTEXT, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=threads,
                          n_threads_batch=threads, flash_attn=True, verbose=False)
    vocabulary = llm.n_vocab()

    def best():
        logits = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(vocabulary,)).argmax())

    def prefill(count):
        llm.reset()
        start = time.perf_counter()
        llm.eval(tokens[:count])
        best()
        return count / (time.perf_counter() - start)

    def decode(count):
        prefill(DECODE_PROMPT)
        ids = [best()]
        start = time.perf_counter()
        for _ in range(count):
            llm.eval(ids[-1:])
            ids.append(best())
        return count / (time.perf_counter() - start), ids

    prefill(PROMPT)
    prefill_speed = prefill(PROMPT)
    decode(DECODE // 8)
    decode_speed, ids = decode(DECODE)
    print(json.dumps({"prefill": prefill_speed, "decode": decode_speed, "ids": ids}))


def output_of(command):
    """The command's standard output; on failure, its standard error and an exit."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{command[0]} failed ({result.returncode}):\n{result.stderr}")
    return result.stdout


def processor():
    """The processor's model name and what tells one such name from another."""
    facts = dict(line.split(":", 1) for line in output_of(["lscpu"]).splitlines() if ":" in line)
    family = "/".join(facts.get(key, "?").strip() for key in ("CPU family", "Model", "Stepping"))
    return f"{facts.get('Model name', '?').strip()} (family/model/stepping {family})"


def common_prefix(first, second):
    return next((i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second)))


def report(gg, peer):
    """The table's figures: medians and the median of the pairwise ratios, for each of the two tasks."""
    figures = {}
    for task in ("prefill", "decode"):
        ours, theirs = [run[task] for run in gg], [run[task] for run in peer]
        figures[task] = {
            "gg_tok_s": round(statistics.median(ours), 1),
            "llama_cpp_tok_s": round(statistics.median(theirs), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs)), 3),
            "gg_runs": [round(x, 1) for x in ours],
            "llama_cpp_runs": [round(x, 1) for x in theirs],
        }
        row = figures[task]
        print(f"{task:8} {row['gg_tok_s']:10.1f} {row['llama_cpp_tok_s']:10.1f} {row['ratio']:8.2f}")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True, help="SmolLM2-135M-Instruct.Q4_1.gguf (runner/demo.sh fetches it)")
    parser.add_argument("--gg", default=ROOT / "build/release/bench/gg-bench-host_model", help="gg's bench program")
    parser.add_argument("--python", help="an interpreter that has llama_cpp")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, help="write the figures as JSON, e.g. bench/results/host-smollm2.json")
    parser.add_argument("--measure-peer", metavar="TOKENS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_peer:
        return measure_peer(options.model, options.measure_peer, options.threads)

    python = options.python or make_peer()
    pathlib.Path(options.model).read_bytes()  # into the page cache
    with tempfile.TemporaryDirectory() as folder:
        tokens = pathlib.Path(folder, "tokens")
        draw = random.Random(1)
        tokens.write_text(" ".join(str(draw.randrange(100, 48000)) for _ in range(PROMPT)))
        gg_command = [options.gg, options.model, tokens, options.threads, DECODE_PROMPT, DECODE, CONTEXT]
        peer_command = [python, __file__, "-m", options.model, "--threads", options.threads, "--measure-peer", tokens]
        gg, peer = [], []
        for number in range(options.rounds):
            gg.append(json.loads(output_of(gg_command)))
            peer.append(json.loads(output_of(peer_command)))
            print(f"round {number + 1}/{options.rounds}", file=sys.stderr)

    print(f"{processor()}, {options.threads} threads, {options.rounds} rounds, median tok/s")
    print(f"{'':8} {'gg':>10} {'llama.cpp':>10} {'ratio':>8}")
    figures = report(gg, peer)
    agree = common_prefix(gg[0]["ids"], peer[0]["ids"])
    print(f"the first {agree} of {DECODE + 1} greedy tokens agree")
    if options.out:
        result = {
            "device": processor(),
            "threads": options.threads,
            "peer": PEER,
            "commit": output_of(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40"]).strip(),
            "command": "python3 bench/compare_llama.py " + " ".join(
                f"--{name} {getattr(options, name)}" for name in ("threads", "rounds")),
            "tokens": {"prefill": PROMPT, "decode": DECODE, "decode_prompt": DECODE_PROMPT},
            "greedy_tokens_that_agree": agree,
            **figures,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
