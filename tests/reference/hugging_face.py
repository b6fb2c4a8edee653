"""Hugging Face's own models, filled with a GGUF's weights and run in float64 throughout.

transformers asks for float32 in places (the norms, the softmax of attention, inverse frequencies,
angles). `Float64` turns every such request into one for float64 and leaves the mathematics alone;
`NoFloat32` then proves it: it refuses any operation that still makes a float32 tensor.
"""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from families import EPSILON, Case, slides

torch.set_num_threads(1)


class Float64(TorchFunctionMode):
    """Within it, torch.float32 asked for is torch.float64 given."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            function = torch.Tensor.double

        def widen(value):
            return torch.float64 if value is torch.float32 else value

        args = tuple(widen(value) for value in args)
        return function(*args, **{name: widen(value) for name, value in (kwargs or {}).items()})


class NoFloat32(TorchDispatchMode):
    """Within it, an operation that yields float32 is an error."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float32:
                raise TypeError(f"{function} yields float32")
        return result


def _half_split(rows: np.ndarray, heads: int) -> np.ndarray:
    """GGUF's rows of q or k, in adjacent pairs, in the order of Hugging Face's half-split pairs."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def _llama(c: Case, t: dict):
    config = LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.hidden,
        intermediate_size=c.ffn,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": c.theta},
        max_position_embeddings=c.context,
        tie_word_embeddings=c.tied,
        hidden_act="silu",
        attn_implementation="eager",
    )
    state = {
        "model.embed_tokens.weight": t["token_embd.weight"],
        "model.norm.weight": t["output_norm.weight"],
    }
    for layer in range(c.layers):
        g, h = f"blk.{layer}.", f"model.layers.{layer}."
        state[h + "input_layernorm.weight"] = t[g + "attn_norm.weight"]
        state[h + "self_attn.q_proj.weight"] = _half_split(t[g + "attn_q.weight"], c.heads)
        state[h + "self_attn.k_proj.weight"] = _half_split(t[g + "attn_k.weight"], c.kv_heads)
        state[h + "self_attn.v_proj.weight"] = t[g + "attn_v.weight"]
        state[h + "self_attn.o_proj.weight"] = t[g + "attn_output.weight"]
        state[h + "post_attention_layernorm.weight"] = t[g + "ffn_norm.weight"]
        for name in ("gate", "up", "down"):
            state[h + f"mlp.{name}_proj.weight"] = t[g + f"ffn_{name}.weight"]
    return LlamaForCausalLM, config, state


def _gpt2(c: Case, t: dict):
    config = GPT2Config(
        vocab_size=c.vocabulary,
        n_positions=c.context,
        n_embd=c.hidden,
        n_layer=c.layers,
        n_head=c.heads,
        n_inner=c.ffn,
        activation_function="gelu_new",
        layer_norm_epsilon=EPSILON,
        tie_word_embeddings=c.tied,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="eager",
    )
    state = {
        "transformer.wte.weight": t["token_embd.weight"],
        "transformer.wpe.weight": t["position_embd.weight"],
    }

    def copy(ours, theirs, transposed=False):
        weight = t[ours + ".weight"]
        state[theirs + ".weight"] = weight.T if transposed else weight
        state[theirs + ".bias"] = t[ours + ".bias"]

    copy("output_norm", "transformer.ln_f")
    for layer in range(c.layers):
        g, h = f"blk.{layer}.", f"transformer.h.{layer}."
        copy(g + "attn_norm", h + "ln_1")
        copy(g + "attn_qkv", h + "attn.c_attn", transposed=True)
        copy(g + "attn_output", h + "attn.c_proj", transposed=True)
        copy(g + "ffn_norm", h + "ln_2")
        copy(g + "ffn_up", h + "mlp.c_fc", transposed=True)
        copy(g + "ffn_down", h + "mlp.c_proj", transposed=True)
    return GPT2LMHeadModel, config, state


def _gpt_oss(c: Case, t: dict):
    rope = {
        "rope_type": "yarn",
        "rope_theta": c.theta,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 4096,
    }
    if c.yarn_betas is not None:
        rope["beta_fast"], rope["beta_slow"] = c.yarn_betas
    config = GptOssConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.hidden,
        intermediate_size=c.ffn,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        num_local_experts=c.experts,
        num_experts_per_tok=c.experts_used,
        sliding_window=c.window,
        layer_types=["sliding_attention" if x else "full_attention" for x in slides(c)],
        rms_norm_eps=EPSILON,
        rope_parameters=rope,
        max_position_embeddings=131072,
        tie_word_embeddings=c.tied,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    state = {
        "model.embed_tokens.weight": t["token_embd.weight"],
        "model.norm.weight": t["output_norm.weight"],
    }
    for layer in range(c.layers):
        g, h = f"blk.{layer}.", f"model.layers.{layer}."
        state[h + "input_layernorm.weight"] = t[g + "attn_norm.weight"]
        for ours, theirs in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("output", "o_proj")):
            state[h + f"self_attn.{theirs}.weight"] = t[g + f"attn_{ours}.weight"]
            state[h + f"self_attn.{theirs}.bias"] = t[g + f"attn_{ours}.bias"]
        state[h + "self_attn.sinks"] = t[g + "attn_sinks.weight"]
        state[h + "post_attention_layernorm.weight"] = t[g + "post_attention_norm.weight"]
        state[h + "mlp.router.weight"] = t[g + "ffn_gate_inp.weight"]
        state[h + "mlp.router.bias"] = t[g + "ffn_gate_inp.bias"]
        # Ours is [experts, out, in]; theirs [experts, in, out], gate and up interleaved.
        gate, up = t[g + "ffn_gate_exps.weight"], t[g + "ffn_up_exps.weight"]
        both = np.stack([gate, up], axis=2).reshape(c.experts, 2 * c.ffn, c.hidden)
        state[h + "mlp.experts.gate_up_proj"] = both.swapaxes(1, 2)
        bias = np.stack([t[g + "ffn_gate_exps.bias"], t[g + "ffn_up_exps.bias"]], axis=2)
        state[h + "mlp.experts.gate_up_proj_bias"] = bias.reshape(c.experts, 2 * c.ffn)
        state[h + "mlp.experts.down_proj"] = t[g + "ffn_down_exps.weight"].swapaxes(1, 2)
        state[h + "mlp.experts.down_proj_bias"] = t[g + "ffn_down_exps.bias"]
    return GptOssForCausalLM, config, state


_FAMILIES = {"llama": _llama, "gpt2": _gpt2, "gpt-oss": _gpt_oss}


def build(case: Case, tensors: dict, dtype: torch.dtype):
    """The model with its weights; every parameter of Hugging Face's must get a value."""
    values = {name: tensor.values for name, tensor in tensors.items()}
    kind, config, state = _FAMILIES[case.family](case, values)
    state["lm_head.weight"] = values["token_embd.weight" if case.tied else "output.weight"]
    torch.set_default_dtype(dtype)
    model = kind(config).to(dtype).eval()
    state = {name: torch.tensor(np.ascontiguousarray(value), dtype=dtype) for name, value in state.items()}
    model.load_state_dict(state, strict=True)
    return model


def _run(model, tokens):
    """log p [tokens, vocabulary] and the router's logits of every layer."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return torch.log_softmax(logits, dim=-1)


def _router_gaps(case: Case, model, gaps: list):
    """Hooks that append, for every layer, how far the last chosen expert leads the first one left out."""

    def hook(_module, _inputs, outputs):
        ordered = outputs[0].sort(dim=-1, descending=True).values
        gaps.append((ordered[:, case.experts_used - 1] - ordered[:, case.experts_used]).numpy())

    for name, module in model.named_modules():
        if name.endswith("mlp.router"):
            module.register_forward_hook(hook)


def log_probabilities(case: Case, tensors: dict, tokens: list):
    """float64 log p(. | tokens[..i]) for every i, and the router's smallest gap per position (or None)."""
    gaps = []
    with Float64():
        model = build(case, tensors, torch.float64)
        if case.family == "gpt-oss" and case.experts_used < case.experts:
            _router_gaps(case, model, gaps)
        with NoFloat32():
            table = _run(model, tokens)
    assert table.dtype == torch.float64
    return table.numpy(), np.min(gaps, axis=0) if gaps else None


def unpatched(case: Case, tensors: dict, tokens: list) -> np.ndarray:
    """The same by transformers as it is, with float64 weights: float32 wherever it insists on it."""
    return _run(build(case, tensors, torch.float64), tokens).numpy()


def inverse_frequencies(case: Case, tensors: dict) -> np.ndarray:
    with Float64():
        return build(case, tensors, torch.float64).model.rotary_emb.inv_freq.numpy()
