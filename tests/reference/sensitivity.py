"""How far each small error moves the goldens: one that does not move proves nothing.

Usage: python tests/reference/sensitivity.py [--fp16] [--data tests/data/model] [--only NAME]

Prints, for each file and each error put into it, the median and the largest change of log p(next token).
With --fp16, what rounding to FP16 costs instead, everything else in float64: each kind of activation that the
CUDA backend keeps so, all of them together, and with them the weights that it turns into FP16. Then the median is
that of the tokens that come next, followed by that of whole rows; positions whose router gap is below 1e-3 are left
out, as in the test of the goldens on a GPU.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES

import oracle
from random_tensors import Tensor

BIASES = (
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_output.bias",
    "attn_qkv.bias",
    "ffn_gate_inp.bias",
    "ffn_gate_exps.bias",
    "ffn_up_exps.bias",
    "ffn_down_exps.bias",
    "ffn_up.bias",
    "ffn_down.bias",
    "attn_norm.bias",
    "output_norm.bias",
)


def flip(tensor: Tensor) -> Tensor:
    """One byte in the middle changed: a float's sign, or the top bits of one byte of codes."""
    data = np.ascontiguousarray(tensor.data).copy()
    flat = data.view(np.uint8).reshape(-1)
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
    block = flat.size // 2 // size * size
    codes = {1: size - 1, 32: size - 5, 256: 100}[elements]
    flat[block + codes] ^= 0x80 if elements == 1 else 0x88
    return Tensor.of_bytes(tensor.type, data)


def replaced(w, name, tensor):
    copy = oracle.Weights.__new__(oracle.Weights)
    copy.meta, copy.family = w.meta, w.family
    copy.tensors = {**w.tensors, name: tensor}
    return copy


def rekeyed(w, **keys):
    copy = oracle.Weights.__new__(oracle.Weights)
    copy.family, copy.tensors = w.family, w.tensors
    copy.meta = {**w.meta, **{f"{w.family}.{name.replace('__', '.')}": value for name, value in keys.items()}}
    return copy


class Patched:
    """One function of the oracle replaced for the length of a with statement."""

    def __init__(self, name, make):
        self.name, self.make = name, make

    def __enter__(self):
        self.original = getattr(oracle, self.name)
        setattr(oracle, self.name, self.make(self.original))

    def __exit__(self, *_):
        setattr(oracle, self.name, self.original)


def wrong_fp4_entry(w):
    """Every MXFP4 tensor decoded with 5 for the code of 6."""
    copy = oracle.Weights.__new__(oracle.Weights)
    copy.meta, copy.family = w.meta, w.family
    right = quants.MXFP4.kvalues
    quants.MXFP4.kvalues = tuple(10 if value == 12 else value for value in right)
    copy.tensors = {
        n: Tensor.of_bytes(t.type, t.data) if t.type == "MXFP4" else t for n, t in w.tensors.items()
    }
    quants.MXFP4.kvalues = right
    return copy


def swapped_pairs(rotate):
    return lambda x, cos, sin, adjacent: rotate(x, cos, sin, not adjacent)


def reversed_angle(rotate):
    return lambda x, cos, sin, adjacent: rotate(x, cos, -sin, adjacent)


def rounded_bounds(_):
    def frequencies(dim, theta, factor, original, beta_fast, beta_slow):
        def bound(rotations):
            return dim * np.log(original / (rotations * 2 * np.pi)) / (2 * np.log(theta))

        low, high = np.floor(bound(beta_fast)), np.ceil(bound(beta_slow))
        i = np.arange(dim // 2)
        plain = theta ** (-2.0 * i / dim)
        ramp = np.clip((i - low) / (high - low), 0, 1)
        return plain * (1 - ramp) + plain / factor * ramp, 0.1 * np.log(factor) + 1

    return frequencies


def without_magnitude(frequencies):
    return lambda *parameters: (frequencies(*parameters)[0], 1.0)


def mutations(w):
    """(description, weights, patch or None) of every error that applies to this file."""
    layer = w.key("block_count") - 1
    p = f"blk.{layer}."
    for suffix in BIASES:
        for name in (p + suffix, suffix):
            if w.has(name):
                yield f"without {name}", replaced(w, name, Tensor.f32(0 * w[name])), None
    if w.has(p + "attn_qkv.bias"):
        for i, part in enumerate("qkv"):
            bias = w[p + "attn_qkv.bias"].copy()
            bias[i * len(bias) // 3 : (i + 1) * len(bias) // 3] = 0
            yield f"without {part} of {p}attn_qkv.bias", replaced(
                w, p + "attn_qkv.bias", Tensor.f32(bias)
            ), None
    if w.has(p + "attn_sinks.weight"):
        sinks = w[p + "attn_sinks.weight"].copy()
        sinks[-1] = -1e30
        yield f"without one sink of layer {layer}", replaced(
            w, p + "attn_sinks.weight", Tensor.f32(sinks)
        ), None
        window = w.key("attention.sliding_window")
        yield "window one too wide", rekeyed(w, attention__sliding_window=window + 1), None
        pattern = [not oracle.slides(w, i) for i in range(layer + 1)]
        yield "other layers slide", rekeyed(w, attention__sliding_window_pattern=pattern), None
        yield "YaRN bounds rounded", w, Patched("yarn_frequencies", rounded_bounds)
        yield "YaRN without its magnitude", w, Patched("yarn_frequencies", without_magnitude)
        yield "without the clamp", w, Patched("LIMIT", lambda _: np.inf)
        yield "gate for up", replaced(
            w, f"{p}ffn_up_exps.weight", w.tensors[f"{p}ffn_gate_exps.weight"]
        ), None
        if "gpt-oss.rope.scaling.yarn_beta_fast" in w.meta:
            betas = {"rope__scaling__yarn_beta_fast": 32.0, "rope__scaling__yarn_beta_slow": 1.0}
            yield "the usual betas", rekeyed(w, **betas), None
    if w.family != "gpt2":
        yield "RoPE pairs swapped", w, Patched("rotate", swapped_pairs)
        yield "RoPE angle reversed", w, Patched("rotate", reversed_angle)
    if any(tensor.type == "MXFP4" for tensor in w.tensors.values()):
        yield "one wrong FP4 entry", wrong_fp4_entry(w), None
    for name, tensor in w.tensors.items():
        if tensor.data.ndim >= 2 and name.startswith("blk.0.") and name.endswith(".weight"):
            yield f"one byte of {name} ({tensor.type})", replaced(w, name, flip(tensor)), None


# Kinds of activations (oracle.kept): inputs of the norms' products, queries, keys and values, attention's
# output, and what the down projection takes.
KINDS = ("norm", "q", "k", "v", "mixed", "inner")

# How a GPU holds matrices of these types, exactly; other types become F16. A group's matrices have one format: F16
# where they would have several.
TILES = {t: t for t in ("MXFP4", "Q8_0", "F16", "BF16")} | dict.fromkeys(("Q4_0", "Q5_0", "IQ4_NL"), "Q8_0")
GROUPS = (("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up"), ("ffn_gate_exps", "ffn_up_exps"))


def fp16(x):
    return x.astype(np.float16).astype(np.float64)


def rounded_weights(w):
    """The matrices that a GPU turns into FP16, rounded; a tied head too, while the rows looked up stay exact."""

    def rounded(name):
        tensor = w.tensors[name]
        layer, _, stem = name.removesuffix(".weight").rpartition(".")
        group = next((group for group in GROUPS if stem in group), (stem,))
        partners = [f"{layer}.{one}.weight" if layer else name for one in group]
        formats = {TILES.get(w.tensors[one].type, "F16") for one in partners if w.has(one)}
        exact = len(formats) == 1 and formats != {"F16"} or tensor.type == "F16"
        return tensor if exact else Tensor(tensor.type, tensor.data, fp16(tensor.values))

    def is_multiplied(name):
        stem = name.split(".")[-2]
        return (
            name.endswith(".weight")
            and w.tensors[name].data.ndim > 1
            and stem not in ("token_embd", "position_embd", "ffn_gate_inp")
        )

    copy = rekeyed(w)
    copy.tensors = {n: rounded(n) if is_multiplied(n) else tensor for n, tensor in w.tensors.items()}
    if not w.has("output.weight"):
        copy.tensors["output.weight"] = rounded("token_embd.weight")
    return copy


def print_fp16(name, w, golden) -> None:
    tokens = np.array(golden["tokens"])
    compared = np.array(golden.get("router_gap", np.full(len(tokens), np.inf))) >= 1e-3
    exact, _ = oracle.log_probabilities(w, tokens)
    spread = exact.std(axis=1).mean()
    roundings = [(kind, w, (kind,)) for kind in KINDS]
    roundings += [("k and v", w, ("k", "v")), ("activations", w, KINDS)]
    roundings += [("activations and weights", rounded_weights(w), KINDS)]
    for what, weights, kinds in roundings:
        with Patched("kept", lambda _: lambda kind, x: fp16(x) if kind in kinds else x):
            table, _ = oracle.log_probabilities(weights, tokens)
        change = np.abs(table - exact)
        following = oracle.next_token(change, tokens)[compared[:-1]]
        print(
            f"{name:16} spread {spread:.2f}  {what:24} median {np.median(following):.1e} "
            f"largest {following.max():.1e}  rows {np.median(change[compared]):.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[1] / "data" / "model")
    parser.add_argument("--only", help="this golden alone")
    parser.add_argument("--fp16", action="store_true", help="what rounding to FP16 costs")
    options = parser.parse_args()
    for path in sorted(options.data.glob("*.json")):
        if options.only not in (None, path.stem):
            continue
        golden = json.loads(path.read_text())
        w = oracle.Weights(path.with_suffix(".gguf"))
        if options.fp16:
            print_fp16(path.stem, w, golden)
            continue
        tokens = np.array(golden["tokens"])
        for description, mutant, patch in mutations(w):
            if patch:
                with patch:
                    table, _ = oracle.log_probabilities(mutant, tokens)
            else:
                table, _ = oracle.log_probabilities(mutant, tokens)
            change = np.abs(oracle.next_token(table, tokens) - golden["logprob"])
            print(
                f"{path.stem:16} {description:50} median {np.median(change):.1e} largest {change.max():.1e}"
            )


if __name__ == "__main__":
    main()
