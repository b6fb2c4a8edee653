"""A plain float64 forward pass, read from the GGUF alone: the second opinion on every golden.

Written from the formulas; it shares the decoding of blocks with the code that makes the files, and nothing with
Hugging Face. It is the only oracle of the family "parallel-qknorm". Shapes: x is [tokens, hidden]; a weight is
[out, in] (GGUF's [in, out] reversed), so that y = x @ W.T.

Usage: oracle.py MODEL.gguf MODEL.json   compares the file's model with the golden.
"""

import json
import math
import sys

import numpy as np
from gguf import GGUFReader

from random_tensors import Tensor

ALPHA, LIMIT = 1.702, 7.0  # of gpt-oss's clamped SwiGLU: not in the file


class Weights:
    """Metadata and dequantised tensors of one GGUF, by name."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.meta = {key: field.contents() for key, field in reader.fields.items()}
        self.family = self.meta["general.architecture"]
        self.tensors = {}
        for tensor in reader.tensors:
            name = tensor.tensor_type.name
            self.tensors[tensor.name] = Tensor.of_bytes(name, np.array(tensor.data))

    def key(self, name, default=None):
        value = self.meta.get(f"{self.family}.{name}", default)
        if value is None:
            raise KeyError(name)
        return value

    def has(self, name):
        return name in self.tensors

    def __getitem__(self, name):
        return self.tensors[name].values


def rms_norm(x, gain, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * gain


def layer_norm(x, gain, bias, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + epsilon) * gain + bias


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def kept(kind, x):
    """An activation that a program keeps for a matrix product or in its cache: sensitivity.py rounds it here."""
    return x


def linear(w, name, x):
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if w.has(f"{name}.bias") else y


def yarn_frequencies(dim, theta, factor, original, beta_fast, beta_slow):
    """Inverse frequencies [dim / 2] by YaRN's parts, bounds not rounded; and the factor of cos and sin."""

    def bound(rotations):
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = max(bound(beta_fast), 0), min(bound(beta_slow), dim - 1)
    i = np.arange(dim // 2)
    plain = theta ** (-2.0 * i / dim)
    ramp = np.clip((i - low) / (high - low), 0, 1)
    return plain * (1 - ramp) + plain / factor * ramp, 0.1 * math.log(factor) + 1


def rotation(w, count, dim):
    """cos and sin [tokens, 1, dim / 2] of every position."""
    theta, scale = w.key("rope.freq_base", 10000.0), 1.0
    if w.key("rope.scaling.type", "none") == "yarn":
        frequencies, scale = yarn_frequencies(
            dim,
            theta,
            w.key("rope.scaling.factor"),
            w.key("rope.scaling.original_context_length"),
            w.key("rope.scaling.yarn_beta_fast", 32.0),
            w.key("rope.scaling.yarn_beta_slow", 1.0),
        )
    else:
        frequencies = theta ** (-2.0 * np.arange(dim // 2) / dim)
    angle = np.arange(count)[:, None, None] * frequencies
    return scale * np.cos(angle), scale * np.sin(angle)


def rotate(x, cos, sin, adjacent):
    """x [tokens, heads, dim] rotated in pairs (2i, 2i+1) when adjacent, else (i, i + dim/2)."""
    half = x.shape[-1] // 2
    first, second = (x[..., 0::2], x[..., 1::2]) if adjacent else (x[..., :half], x[..., half:])
    out = np.empty_like(x)
    a, b = first * cos - second * sin, second * cos + first * sin
    if adjacent:
        out[..., 0::2], out[..., 1::2] = a, b
    else:
        out[..., :half], out[..., half:] = a, b
    return out


def attend(q, k, v, window=None, sinks=None):
    """Causal attention; q [tokens, heads, dim], k and v [tokens, kv_heads, dim] -> [tokens, heads * dim]."""
    count, heads, dim = q.shape
    group = heads // k.shape[1]
    out = np.empty_like(q)
    for begin in range(0, count, 512):
        rows = np.arange(begin, min(begin + 512, count))
        distance = rows[:, None] - np.arange(count)
        visible = (distance >= 0) & (distance < (window or count))
        for head in range(heads):
            score = q[rows, head] @ k[:, head // group].T / math.sqrt(dim)
            score = np.where(visible, score, -np.inf)
            largest = score.max(axis=1, keepdims=True)
            if sinks is not None:
                largest = np.maximum(largest, sinks[head])
            p = np.exp(score - largest)
            total = p.sum(axis=1, keepdims=True)
            if sinks is not None:
                total = total + np.exp(sinks[head] - largest)
            out[rows, head] = p / total @ v[:, head // group]
    return out.reshape(count, heads * dim)


def slides(w, layer):
    """Whether this layer sees only its window."""
    pattern = w.key(
        "attention.sliding_window_pattern", [layer % 2 == 0 for layer in range(w.key("block_count"))]
    )
    return bool(pattern[layer])


def attention_block(w, p, layer, x, cos_sin, adjacent):
    heads, kv_heads = w.key("attention.head_count"), w.key("attention.head_count_kv")
    count, x = len(x), kept("norm", x)
    q = linear(w, p + "attn_q", x).reshape(count, heads, -1)
    k = linear(w, p + "attn_k", x).reshape(count, kv_heads, -1)
    v = linear(w, p + "attn_v", x).reshape(count, kv_heads, -1)
    if w.has(p + "attn_q_norm.weight"):
        epsilon = w.key("attention.layer_norm_rms_epsilon")
        q = rms_norm(q, w[p + "attn_q_norm.weight"], epsilon)
        k = rms_norm(k, w[p + "attn_k_norm.weight"], epsilon)
    q, k = rotate(q, *cos_sin, adjacent), rotate(k, *cos_sin, adjacent)
    sinks = w[p + "attn_sinks.weight"] if w.has(p + "attn_sinks.weight") else None
    window = w.key("attention.sliding_window") if w.family == "gpt-oss" and slides(w, layer) else None
    mixed = attend(kept("q", q), kept("k", k), kept("v", v), window, sinks)
    return linear(w, p + "attn_output", kept("mixed", mixed))


def swiglu_block(w, p, x):
    x = kept("norm", x)
    gate = linear(w, p + "ffn_gate", x)
    return linear(w, p + "ffn_down", kept("inner", gate * sigmoid(gate) * linear(w, p + "ffn_up", x)))


def expert_block(w, p, x):
    """Mixture of clamped-SwiGLU experts. Returns the sum [tokens, hidden] and each row's router gap."""
    logits, x = linear(w, p + "ffn_gate_inp", x), kept("norm", x)
    used = w.key("expert_used_count")
    order = np.argsort(-logits, axis=1)
    ordered = np.take_along_axis(logits, order, axis=1)
    gap = ordered[:, used - 1] - ordered[:, used] if used < logits.shape[1] else np.full(len(x), np.inf)
    share = np.exp(ordered[:, :used] - ordered[:, :1])
    share /= share.sum(axis=1, keepdims=True)
    y = np.zeros_like(x)
    for expert in range(logits.shape[1]):
        row, slot = np.nonzero(order[:, :used] == expert)
        part = {n: w[f"{p}ffn_{n}_exps.weight"][expert] for n in ("gate", "up", "down")}
        bias = {n: w[f"{p}ffn_{n}_exps.bias"][expert] for n in ("gate", "up", "down")}
        gate = np.minimum(x[row] @ part["gate"].T + bias["gate"], LIMIT)
        up = np.clip(x[row] @ part["up"].T + bias["up"], -LIMIT, LIMIT)
        inner = kept("inner", gate * sigmoid(ALPHA * gate) * (up + 1))
        y[row] += share[row, slot][:, None] * (inner @ part["down"].T + bias["down"])
    return y, gap


def llama(w, x):
    epsilon = w.key("attention.layer_norm_rms_epsilon")
    cos_sin = rotation(w, len(x), w["blk.0.attn_q.weight"].shape[0] // w.key("attention.head_count"))
    for layer in range(w.key("block_count")):
        p = f"blk.{layer}."
        n = rms_norm(x, w[p + "attn_norm.weight"], epsilon)
        x = x + attention_block(w, p, layer, n, cos_sin, adjacent=True)
        x = x + swiglu_block(w, p, rms_norm(x, w[p + "ffn_norm.weight"], epsilon))
    return rms_norm(x, w["output_norm.weight"], epsilon), None


def parallel_qknorm(w, x):
    epsilon = w.key("attention.layer_norm_rms_epsilon")
    cos_sin = rotation(w, len(x), w["blk.0.attn_q.weight"].shape[0] // w.key("attention.head_count"))
    for layer in range(w.key("block_count")):
        p = f"blk.{layer}."
        n = rms_norm(x, w[p + "attn_norm.weight"], epsilon)
        x = x + attention_block(w, p, layer, n, cos_sin, adjacent=False) + swiglu_block(w, p, n)
    return rms_norm(x, w["output_norm.weight"], epsilon), None


def gpt_oss(w, x):
    epsilon = w.key("attention.layer_norm_rms_epsilon")
    cos_sin = rotation(w, len(x), w["blk.0.attn_q.weight"].shape[0] // w.key("attention.head_count"))
    gaps = []
    for layer in range(w.key("block_count")):
        p = f"blk.{layer}."
        n = rms_norm(x, w[p + "attn_norm.weight"], epsilon)
        x = x + attention_block(w, p, layer, n, cos_sin, adjacent=False)
        y, gap = expert_block(w, p, rms_norm(x, w[p + "post_attention_norm.weight"], epsilon))
        x = x + y
        gaps.append(gap)
    return rms_norm(x, w["output_norm.weight"], epsilon), np.min(gaps, axis=0)


def gpt2(w, x):
    epsilon, heads, count = w.key("attention.layer_norm_epsilon"), w.key("attention.head_count"), len(x)

    def norm(name, x):
        return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

    x = x + w["position_embd.weight"][:count]
    for layer in range(w.key("block_count")):
        p = f"blk.{layer}."
        qkv = linear(w, p + "attn_qkv", kept("norm", norm(p + "attn_norm", x)))
        q, k, v = (part.reshape(count, heads, -1) for part in np.split(qkv, 3, axis=1))
        mixed = attend(kept("q", q), kept("k", k), kept("v", v))
        x = x + linear(w, p + "attn_output", kept("mixed", mixed))
        u = linear(w, p + "ffn_up", kept("norm", norm(p + "ffn_norm", x)))
        u = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        x = x + linear(w, p + "ffn_down", kept("inner", u))
    return norm("output_norm", x), None


FAMILIES = {"llama": llama, "gpt2": gpt2, "gpt-oss": gpt_oss, "parallel-qknorm": parallel_qknorm}


def log_probabilities(w, tokens):
    """log p(. | tokens[..i]) for every i, [tokens, vocabulary]; and the router gaps [tokens], or None."""
    x, gaps = FAMILIES[w.family](w, w["token_embd.weight"][tokens])
    logits = kept("norm", x) @ w["output.weight" if w.has("output.weight") else "token_embd.weight"].T
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), gaps


def next_token(table, tokens):
    """log p(tokens[i + 1] | tokens[..i]) of the table that log_probabilities returns."""
    return table[np.arange(len(tokens) - 1), tokens[1:]]


if __name__ == "__main__":
    golden = json.load(open(sys.argv[2]))
    table, _ = log_probabilities(Weights(sys.argv[1]), np.array(golden["tokens"]))
    difference = np.abs(next_token(table, golden["tokens"]) - golden["logprob"])
    print(f"largest difference {difference.max():.3g}, median {np.median(difference):.3g}")
    sys.exit(bool(difference.max() > 1e-9))
