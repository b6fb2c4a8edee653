"""What a GGUF of each family holds: keys, tensor names and shapes, and random weights of lively sizes."""

from dataclasses import dataclass

import numpy as np

from random_tensors import Tensor, random_tensor

EPSILON = float(np.float32(1e-5))  # the key is a float32: the golden uses the value that the file holds
# Of the final norm: logits spread by about 0.6 (README.md says why). A power of two scales them exactly.
LOGIT_SCALE = 0.25


@dataclass
class Case:
    """One golden: the model's dimensions, its tensor types and its tokens."""

    name: str
    family: str
    tokens: int = 60
    layers: int = 2
    hidden: int = 48
    heads: int = 6
    kv_heads: int = 3
    head_dim: int = 16
    ffn: int = 64
    vocabulary: int = 97
    tied: bool = False
    context: int = 512
    theta: float = 10000.0
    experts: int = 5
    experts_used: int = 2
    window: int = 8
    pattern: list | None = None  # which layers slide; None: the key is absent, even layers slide
    yarn_betas: tuple | None = None  # (fast, slow); None: the keys are absent
    types: tuple = ("F32",)  # of the dense matrices, taken in turn
    expert_types: tuple = ("MXFP4",)  # of the expert matrices, taken in turn
    embedding: str | None = None  # type of token_embd; None: in turn, as the others
    rows: bool = True  # whether the JSON has whole rows of the vocabulary
    text: bool = False  # whether the file carries a vocabulary
    seed: int = 1


def slides(case: Case) -> list:
    return [bool(x) for x in case.pattern or [layer % 2 == 0 for layer in range(case.layers)]]


def metadata(case: Case) -> list:
    """(key, GGUFWriter method, value) of the family's keys, in order."""
    p = case.family
    keys = [
        (f"{p}.block_count", "uint32", case.layers),
        (f"{p}.context_length", "uint32", case.context),
        (f"{p}.embedding_length", "uint32", case.hidden),
        (f"{p}.feed_forward_length", "uint32", case.ffn),
        (f"{p}.attention.head_count", "uint32", case.heads),
    ]
    if p == "gpt2":
        return keys + [(f"{p}.attention.layer_norm_epsilon", "float32", EPSILON)]
    keys += [
        (f"{p}.attention.head_count_kv", "uint32", case.kv_heads),
        (f"{p}.attention.layer_norm_rms_epsilon", "float32", EPSILON),
        (f"{p}.rope.freq_base", "float32", case.theta),
    ]
    # Llama files leave the head dimension out where it is hidden / heads.
    if p != "llama" or case.head_dim * case.heads != case.hidden:
        keys += [
            (f"{p}.attention.key_length", "uint32", case.head_dim),
            (f"{p}.attention.value_length", "uint32", case.head_dim),
        ]
    if p != "gpt-oss":
        return keys + [
            (f"{p}.rope.dimension_count", "uint32", case.head_dim),
            (f"{p}.vocab_size", "uint32", case.vocabulary),
        ]
    keys += [
        (f"{p}.expert_count", "uint32", case.experts),
        (f"{p}.expert_used_count", "uint32", case.experts_used),
        (f"{p}.expert_feed_forward_length", "uint32", case.ffn),
        (f"{p}.attention.sliding_window", "uint32", case.window),
        (f"{p}.rope.scaling.type", "string", "yarn"),
        (f"{p}.rope.scaling.factor", "float32", 32.0),
        (f"{p}.rope.scaling.original_context_length", "uint32", 4096),
    ]
    if case.pattern is not None:
        keys.append((f"{p}.attention.sliding_window_pattern", "array", case.pattern))
    if case.yarn_betas is not None:
        keys.append((f"{p}.rope.scaling.yarn_beta_fast", "float32", case.yarn_betas[0]))
        keys.append((f"{p}.rope.scaling.yarn_beta_slow", "float32", case.yarn_betas[1]))
    return keys


class _Maker:
    """Adds random tensors in file order; matrices take the case's types in turn."""

    def __init__(self, case: Case, rng: np.random.Generator):
        self.case, self.rng, self.tensors = case, rng, {}
        self.turn = {"dense": 0, "expert": 0}

    def matrix(self, name, shape, gain, kind="dense", type_name=None):
        """Entries of standard deviation gain / sqrt(ne0): a unit input gives outputs of size gain."""
        if type_name is None:
            types = self.case.types if kind == "dense" else self.case.expert_types
            type_name = types[self.turn[kind] % len(types)]
            self.turn[kind] += 1
        self.tensors[name] = random_tensor(self.rng, type_name, shape, gain / np.sqrt(shape[-1]))

    def vector(self, name, shape, mean, std):
        self.tensors[name] = Tensor.f32(mean + std * self.rng.standard_normal(shape))

    def linear(self, name, out, inputs, gain, bias=None):
        self.matrix(f"{name}.weight", (out, inputs), gain)
        if bias is not None:
            self.vector(f"{name}.bias", (out,), 0.0, bias)

    def norm(self, name, size, bias=False, scale=1.0):
        self.vector(f"{name}.weight", (size,), scale, 0.25 * scale)
        if bias:
            self.vector(f"{name}.bias", (size,), 0.0, 0.3 * scale)


def _embedding(make: _Maker):
    c = make.case
    gain = 2.5 if c.tied else np.sqrt(c.hidden)
    make.matrix("token_embd.weight", (c.vocabulary, c.hidden), gain, type_name=c.embedding)


def _head(make: _Maker, bias=False):
    c = make.case
    make.norm("output_norm", c.hidden, bias, scale=LOGIT_SCALE)
    if not c.tied:
        make.matrix("output.weight", (c.vocabulary, c.hidden), 2.5)


def _attention(make: _Maker, p: str, bias=None, score=1.4):
    c = make.case
    make.linear(p + "attn_q", c.heads * c.head_dim, c.hidden, score, bias)
    make.linear(p + "attn_k", c.kv_heads * c.head_dim, c.hidden, score, bias)
    make.linear(p + "attn_v", c.kv_heads * c.head_dim, c.hidden, 1.2, bias)
    make.linear(p + "attn_output", c.hidden, c.heads * c.head_dim, 1.2, bias)


def _swiglu(make: _Maker, p: str):
    c = make.case
    make.linear(p + "ffn_gate", c.ffn, c.hidden, 1.5)
    make.linear(p + "ffn_up", c.ffn, c.hidden, 1.5)
    make.linear(p + "ffn_down", c.hidden, c.ffn, 0.9)


def _experts(make: _Maker, p: str):
    c = make.case
    make.tensors[p + "ffn_gate_inp.weight"] = random_tensor(
        make.rng, "F32", (c.experts, c.hidden), 2.0 / np.sqrt(c.hidden)
    )
    make.vector(p + "ffn_gate_inp.bias", (c.experts,), 0.0, 0.7)
    # Gates and ups of size 3.5 pass the clamp at 7 now and then.
    for name, out, inputs, gain, bias in (
        ("gate", c.ffn, c.hidden, 3.5, 0.7),
        ("up", c.ffn, c.hidden, 3.5, 0.7),
        ("down", c.hidden, c.ffn, 0.25, 0.4),
    ):
        make.matrix(f"{p}ffn_{name}_exps.weight", (c.experts, out, inputs), gain, "expert")
        make.vector(f"{p}ffn_{name}_exps.bias", (c.experts, out), 0.0, bias)


def _llama(make: _Maker):
    c = make.case
    _embedding(make)
    for layer in range(c.layers):
        p = f"blk.{layer}."
        make.norm(p + "attn_norm", c.hidden)
        _attention(make, p)
        make.norm(p + "ffn_norm", c.hidden)
        _swiglu(make, p)
    _head(make)


def _parallel_qknorm(make: _Maker):
    c = make.case
    _embedding(make)
    for layer in range(c.layers):
        p = f"blk.{layer}."
        make.norm(p + "attn_norm", c.hidden)
        _attention(make, p)
        make.norm(p + "attn_q_norm", c.head_dim)
        make.norm(p + "attn_k_norm", c.head_dim)
        _swiglu(make, p)
    _head(make)


def _gpt_oss(make: _Maker):
    c = make.case
    _embedding(make)
    for layer in range(c.layers):
        p = f"blk.{layer}."
        make.norm(p + "attn_norm", c.hidden)
        _attention(make, p, bias=0.4, score=1.05)  # YaRN enlarges q and k
        # A sink weighs about as much as all keys that a row sees.
        seen = c.window if slides(c)[layer] else c.tokens / 2
        make.vector(p + "attn_sinks.weight", (c.heads,), np.log(seen) + 0.7, 1.0)
        make.norm(p + "post_attention_norm", c.hidden)
        _experts(make, p)
    _head(make)


def _gpt2(make: _Maker):
    c = make.case
    _embedding(make)
    make.vector("position_embd.weight", (c.context, c.hidden), 0.0, 0.3 if c.tied else 0.7)
    for layer in range(c.layers):
        p = f"blk.{layer}."
        make.norm(p + "attn_norm", c.hidden, bias=True)
        make.linear(p + "attn_qkv", 3 * c.hidden, c.hidden, 1.4, bias=0.4)
        make.linear(p + "attn_output", c.hidden, c.hidden, 1.2, bias=0.4)
        make.norm(p + "ffn_norm", c.hidden, bias=True)
        make.linear(p + "ffn_up", c.ffn, c.hidden, 1.5, bias=0.4)
        make.linear(p + "ffn_down", c.hidden, c.ffn, 1.0, bias=0.4)
    _head(make, bias=True)


_MAKERS = {"llama": _llama, "gpt2": _gpt2, "gpt-oss": _gpt_oss, "parallel-qknorm": _parallel_qknorm}


def random_weights(case: Case, seed: int) -> dict:
    """Tensors by GGUF name, in file order."""
    make = _Maker(case, np.random.default_rng(seed))
    _MAKERS[case.family](make)
    return make.tensors
