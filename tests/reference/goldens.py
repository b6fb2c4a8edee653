"""Makes the goldens of whole models: NAME.gguf, small and random, and NAME.json, its log-probabilities.

Usage: python tests/reference/goldens.py [--only NAME] [--out tests/data/model]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

import hugging_face
import oracle
import vocabulary
from families import Case, metadata, random_weights
from random_tensors import TYPES

BLOCKS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4")
K_TYPES = ("Q4_K", "Q5_K", "Q6_K")

HALVES = ("F16", "BF16")


def _gpt_oss(name: str, **settings) -> Case:
    return Case(name, "gpt-oss", **{"theta": 150000.0, **settings})


CASES = [
    Case("llama-f32", "llama", tokens=40, head_dim=8, ffn=51),
    Case("gpt2-f32", "gpt2", tokens=64, context=64, heads=3, ffn=51, tied=True),
    _gpt_oss("gpt-oss-f32", tokens=40, ffn=35, expert_types=("F32",)),
    _gpt_oss("gpt-oss-mxfp4", tokens=100, hidden=64, ffn=64),
    # Rows that fill no vector register, heads wider in sum than the model, vocabulary 999.
    Case("llama-half", "llama", layers=3, hidden=36, heads=9, head_dim=10, ffn=37, vocabulary=999, tied=True,
         theta=500000.0, types=HALVES),
    Case("gpt2-half", "gpt2", layers=4, context=64, hidden=40, heads=5, ffn=37, vocabulary=999,
         types=(*HALVES, "F16")),
    _gpt_oss("gpt-oss-half", layers=3, hidden=40, heads=9, ffn=37, window=16, pattern=[0, 1, 1],
             yarn_betas=(128.0, 1.5), types=HALVES, expert_types=(*HALVES, "F16", "F16")),
    # Blocks of 32. A turn as long as a layer gives a role the same type in each layer, so F16 lengthens it.
    Case("llama-320", "llama", tokens=100, hidden=320, heads=10, kv_heads=5, ffn=64, theta=100000.0,
         types=(*BLOCKS, "F16")),
    Case("gpt2-blocks", "gpt2", layers=3, context=80, hidden=96, heads=6, ffn=96, types=BLOCKS),
    _gpt_oss("gpt-oss-320", tokens=100, hidden=320, head_dim=32, ffn=32, experts_used=4, window=16,
             context=131072, types=BLOCKS, expert_types=("MXFP4", "MXFP4", "MXFP4", "MXFP4", "Q8_0")),
    _gpt_oss("gpt-oss-experts", layers=4, hidden=64, ffn=64, pattern=[False, True, True, False],
             types=("Q8_0", "BF16"), expert_types=("F16", "BF16", "Q8_0", "Q5_0", "Q4_1", "MXFP4", "Q4_0",
                                                   "Q5_1", "IQ4_NL", "Q8_0", "F32", "Q5_0")),
    # K-quants, in rows of 256; one KV head.
    Case("llama-k", "llama", layers=1, hidden=256, heads=4, kv_heads=1, head_dim=64, ffn=256, tied=True,
         types=K_TYPES, embedding="Q6_K"),
    Case("gpt2-k", "gpt2", tokens=48, layers=1, context=48, hidden=256, heads=4, ffn=256, tied=True,
         types=K_TYPES, embedding="Q4_K"),
    _gpt_oss("gpt-oss-k", layers=1, hidden=256, heads=4, kv_heads=1, head_dim=64, ffn=256, experts=3,
             types=K_TYPES, expert_types=K_TYPES),
    # The window of the published models; then past the context that YaRN was stretched from.
    _gpt_oss("gpt-oss-window", tokens=300, layers=3, hidden=64, heads=4, kv_heads=1, head_dim=64, ffn=32,
             vocabulary=999, window=128, types=("Q8_0",)),
    _gpt_oss("gpt-oss-long", tokens=4200, context=131072, hidden=32, heads=2, kv_heads=1, head_dim=64, ffn=32,
             vocabulary=64, experts_used=4, window=128, rows=False),
    Case("llama-long", "llama", tokens=4200, context=8192, hidden=32, heads=2, kv_heads=1, ffn=32,
         vocabulary=64, theta=500000.0, rows=False),
    # With a vocabulary of their own, for tests that begin and end with text.
    Case("llama-text", "llama", hidden=64, heads=4, kv_heads=2, ffn=96, types=("Q8_0",), text=True,
         vocabulary=vocabulary.size("llama")),
    _gpt_oss("gpt-oss-text", hidden=64, ffn=32, types=("Q8_0",), text=True,
             vocabulary=vocabulary.size("gpt-oss")),
    # A family that the library does not have.
    Case("parallel-qknorm", "parallel-qknorm"),
]


def write_gguf(path: Path, case: Case, tensors: dict) -> None:
    writer = GGUFWriter(path, case.family)
    writer.add_string("general.name", case.name)
    for key, kind, value in metadata(case):
        getattr(writer, f"add_{kind}")(key, value)
    if case.text:
        vocabulary.add_to(writer, case.family)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.data, raw_dtype=GGMLQuantizationType[tensor.type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(case: Case, out: Path) -> str:
    """Writes one case; returns a line about it. Fails when the two oracles differ."""
    began = time.time()
    path = out / f"{case.name}.gguf"
    # A position where two experts nearly tie would have two right answers: the next seed is tried.
    smallest = 1e-4 if case.tokens < 1000 else 1e-5
    for seed in range(case.seed, case.seed + 20):
        tensors = random_weights(case, seed)
        tokens = np.random.default_rng(seed + 1000).integers(0, case.vocabulary, case.tokens)
        if case.text:
            tokens = vocabulary.tokens(case.family)
        tokens = [int(token) for token in tokens]
        write_gguf(path, case, tensors)
        second, second_gaps = oracle.log_probabilities(oracle.Weights(path), tokens)
        if second_gaps is None or second_gaps.min() > smallest:
            break
    else:
        raise RuntimeError(f"{case.name}: no seed without near ties of the router")
    line = f"{case.name}: seed {seed}"
    if case.family == "parallel-qknorm":
        table, gaps = second, None
    else:
        table, gaps = hugging_face.log_probabilities(case, tensors, tokens)
        difference = np.abs(table - second).max()
        if difference > 1e-9:
            raise RuntimeError(f"{case.name}: Hugging Face and the oracle differ by {difference}")
        plain = np.abs(table - hugging_face.unpatched(case, tensors, tokens))
        line += f", oracle {difference:.1e}, unpatched median {np.median(plain):.1e} max {plain.max():.1e}"
    golden = {
        "name": case.name,
        "family": case.family,
        "tokens": tokens,
        "logprob": [float(x) for x in oracle.next_token(table, tokens)],
    }
    if case.text:
        golden["text"] = vocabulary.TEXT
    if case.rows:
        golden["rows"] = [
            {"position": p, "logprob": [round(float(x), 10) for x in table[p]]}
            for p in (len(tokens) // 2, len(tokens) - 1)
        ]
    if gaps is not None:
        golden["router_gap"] = [float(f"{x:.4g}") for x in gaps]
        line += f", router gap min {gaps.min():.1e}, below 1e-3 at {np.mean(gaps < 1e-3):.1%}"
    (out / f"{case.name}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    line += f", spread {table.std(axis=1).mean():.2f}, {path.stat().st_size / 1e3:.0f} kB"
    return f"{line}, {time.time() - began:.1f} s"


def check_coverage(cases: list) -> None:
    """Every family must meet every type in a dense matrix."""
    for family in ("llama", "gpt2", "gpt-oss"):
        met = set()
        for case in cases:
            if case.family == family:
                weights = random_weights(case, case.seed)
                blocks = [n for n in weights if n.startswith("blk.") and n.endswith(".weight")]
                dense = [n for n in blocks if weights[n].data.ndim == 2 and "ffn_gate_inp" not in n]
                met |= {weights[n].type for n in dense}
        missing = set(TYPES) - met
        if missing:
            raise RuntimeError(f"{family} has no dense matrix of {sorted(missing)}")


def check_yarn() -> None:
    """The published model's inverse frequencies by both oracles, against values known beforehand."""
    case = next(case for case in CASES if case.name == "gpt-oss-long")
    known = {
        0: 1.0,
        8: 0.0508132748,
        9: 0.0317056962,
        12: 0.00679495949,
        17: 1.29318701e-4,
        18: 3.83088124e-5,
        31: 3.02351143e-7,
    }
    theirs = hugging_face.inverse_frequencies(case, random_weights(case, case.seed))
    ours, _ = oracle.yarn_frequencies(case.head_dim, case.theta, 32.0, 4096, 32.0, 1.0)
    for i, value in known.items():
        if abs(theirs[i] / value - 1) > 1e-8 or abs(ours[i] / value - 1) > 1e-8:
            raise RuntimeError(f"inv_freq[{i}]: Hugging Face {theirs[i]}, oracle {ours[i]}, known {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="make this case alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data" / "model")
    options = parser.parse_args()
    chosen = [case for case in CASES if options.only in (None, case.name)]
    if not chosen:
        parser.error(f"no case {options.only}; there are: {', '.join(case.name for case in CASES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    check_coverage(CASES)
    check_yarn()
    for case in chosen:
        print(make(case, options.out), flush=True)


if __name__ == "__main__":
    main()
