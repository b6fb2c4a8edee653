#!/usr/bin/env python3
"""Turns a Hugging Face checkpoint of the gpt-oss family into a GGUF file.

    python3 runner/demo/convert_hf.py CHECKPOINT OUT.gguf [--dense Q8_0] [--experts MXFP4]

CHECKPOINT is a folder with config.json, model*.safetensors and tokenizer.json. Experts come either in MXFP4
(tensors *_blocks and *_scales of bytes: neighbours share a byte, gate and up rows come in turn) or as plain
matrices [experts, in, out], as after training. MXFP4 that stays MXFP4 is only rearranged: no bit of a value
changes. At most one expert or 16 million elements are in memory at a time; the output appears under its name
when it is complete.
"""

import argparse
import json
import pathlib
import sys

import gguf
import numpy as np

from gguf_output import Planned, Type, encode, no_progress, terminal_progress, write_tensors
from gguf_tokenizer import add_tokenizer
from safetensors_reader import Fault, Tensor, open_folder

ROWS_AT_ONCE = 1 << 24  # elements of a large matrix that are converted in one go


def plain(name: str, source: Tensor, kind: Type) -> Planned:
    """A matrix or vector as it is, in another type."""
    rows = source.shape[0] if len(source.shape) > 1 else 1
    step = max(1, ROWS_AT_ONCE // (int(np.prod(source.shape, dtype=np.int64)) // rows))

    def pieces():
        if len(source.shape) == 1:
            yield encode(source.floats(), kind, source.name)
            return
        for at in range(0, rows, step):
            yield encode(source.floats(slice(at, at + step)), kind, source.name)

    return Planned(name, kind, source.shape, pieces)


def gguf_blocks(blocks: np.ndarray, scales: np.ndarray, name: str) -> np.ndarray:
    """Blocks [..., 16] of neighbours and scales [...] to GGUF's 17 bytes: j and j + 16 share byte 1 + j."""
    if (scales == 255).any():
        where = ", ".join(map(str, np.argwhere(scales == 255)[0]))
        raise Fault(f"tensor {name}_scales: scale 255, which is NaN, at [{where}]")
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    joined = codes[..., :16] | codes[..., 16:] << 4
    return np.concatenate([scales[..., None], joined], axis=-1)


class Experts:
    """The experts' matrices of one layer, in either layout, one expert's rows [out, in] at a time."""

    def __init__(self, tensors: dict, prefix: str, shape: tuple, kind: Type):
        self.kind, self.prefix, (self.count, self.out, self.inputs) = kind, prefix, shape
        self.blocks, self.scales = (tensors.get(f"{prefix}_{part}") for part in ("blocks", "scales"))
        self.values = tensors.get(prefix)
        if self.values is None and (self.blocks is None or self.scales is None):
            raise Fault(f"tensor {prefix}: found neither it nor {prefix}_blocks with {prefix}_scales")
        if self.values is not None:
            require_shape(self.values, (self.count, self.inputs, self.out))
        else:
            if self.inputs % 32:
                raise Fault(
                    f"tensor {prefix}_blocks: rows of {self.inputs} are no whole blocks of MXFP4 (32)"
                )
            require_shape(self.blocks, (self.count, self.out, self.inputs // 32, 16), "U8")
            require_shape(self.scales, (self.count, self.out, self.inputs // 32), "U8")

    def rows(self, expert: int, part: slice) -> np.ndarray:
        """The encoded rows of one expert, every row or every second one."""
        if self.values is not None:
            return encode(self.values.floats(expert)[:, part].T, self.kind, self.prefix)
        raw = gguf_blocks(self.blocks.map()[expert, part], self.scales.map()[expert, part], self.prefix)
        raw = raw.reshape(raw.shape[0], -1)
        if self.kind == Type.MXFP4:
            return raw
        return encode(gguf.quants.dequantize(raw, Type.MXFP4), self.kind, self.prefix)

    def planned(self, name: str, part: slice) -> Planned:
        shape = (self.count, len(range(*part.indices(self.out))), self.inputs)
        return Planned(name, self.kind, shape, lambda: (self.rows(e, part) for e in range(self.count)))


def require_shape(tensor: Tensor, shape: tuple, kind: str | None = None):
    if tensor.shape != tuple(shape) or (kind and tensor.kind != kind):
        raise Fault(
            f"{tensor.path}: tensor {tensor.name}: expected {kind or 'shape'} {list(shape)}, "
            f"found {tensor.kind} {list(tensor.shape)}"
        )


class Config:
    """config.json, with the names that both older and newer files use."""

    def __init__(self, folder: pathlib.Path):
        self.path = folder / "config.json"
        try:
            self.values = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise Fault(f"{self.path}: not found; give the folder of a Hugging Face checkpoint") from None
        except ValueError as error:
            raise Fault(f"{self.path}: not JSON: {error}") from None
        if self.values.get("model_type") != "gpt_oss":
            raise Fault(f"{self.path}: model_type: expected gpt_oss, found {self.values.get('model_type')!r}")
        self.rope = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        self.rope = {"rope_theta": self.values.get("rope_theta", 150000.0), **self.rope}
        fixed = [
            ("rope_type", self.rope.get("rope_type", self.rope.get("type")), "yarn"),
            ("truncate", self.rope.get("truncate", True), False),
            ("swiglu_limit", self.values.get("swiglu_limit", 7.0), 7.0),
            ("swiglu_alpha", self.values.get("swiglu_alpha", 1.702), 1.702),
            ("attention_bias", self.values.get("attention_bias", True), True),
        ]
        for key, found, expected in fixed:
            if found != expected:
                raise Fault(
                    f"{self.path}: {key}: expected {expected}, found {found!r}: GGUF has no key for it"
                )

    def integer(self, *names) -> int:
        for name in names:
            value = self.values.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
        raise Fault(
            f"{self.path}: {names[0]}: expected a positive integer, found {self.values.get(names[0])!r}"
        )

    def rope_number(self, name: str) -> float:
        value = self.rope.get(name)
        if isinstance(value, (int, float)) and value > 0:
            return value
        raise Fault(f"{self.path}: rope_parameters.{name}: expected a positive number, found {value!r}")

    def sliding(self) -> list:
        layers = self.integer("num_hidden_layers")
        kinds = self.values.get("layer_types") or ["sliding_attention", "full_attention"] * layers
        return [kind == "sliding_attention" for kind in kinds[:layers]]


def plan(config: Config, tensors: dict, dense: Type, experts: Type) -> list:
    """All tensors of the output, in order. Every tensor of the checkpoint must be used."""
    hidden, width = config.integer("hidden_size"), config.integer("intermediate_size")
    count = config.integer("num_local_experts")
    head_dim, vocabulary = config.integer("head_dim"), config.integer("vocab_size")
    q, kv = (config.integer(key) * head_dim for key in ("num_attention_heads", "num_key_value_heads"))
    used, result = set(), []

    def add(ours, theirs, shape, kind=Type.F32):
        if theirs not in tensors:
            raise Fault(f"tensor {theirs}: not in the checkpoint")
        require_shape(tensors[theirs], shape)
        used.add(theirs)
        result.append(plain(ours, tensors[theirs], kind))

    def add_experts(ours, prefix, part, out, inputs):
        matrix = Experts(tensors, prefix, (count, out, inputs), experts)
        used.update({prefix, prefix + "_blocks", prefix + "_scales", prefix + "_bias"} & tensors.keys())
        result.append(matrix.planned(f"{ours}.weight", part))
        if prefix + "_bias" not in tensors:
            raise Fault(f"tensor {prefix}_bias: not in the checkpoint")
        bias = tensors[prefix + "_bias"]
        require_shape(bias, (count, out))
        shape = (count, len(range(*part.indices(out))))
        result.append(Planned(f"{ours}.bias", Type.F32, shape, lambda: iter([bias.floats()[:, part]])))

    add("token_embd.weight", "model.embed_tokens.weight", (vocabulary, hidden), dense)
    for layer in range(config.integer("num_hidden_layers")):
        g, h = f"blk.{layer}.", f"model.layers.{layer}."
        add(g + "attn_norm.weight", h + "input_layernorm.weight", (hidden,))
        projections = (
            ("q", "q", q, hidden),
            ("k", "k", kv, hidden),
            ("v", "v", kv, hidden),
            ("output", "o", hidden, q),
        )
        for ours, theirs, out, inputs in projections:
            add(f"{g}attn_{ours}.weight", f"{h}self_attn.{theirs}_proj.weight", (out, inputs), dense)
            add(f"{g}attn_{ours}.bias", f"{h}self_attn.{theirs}_proj.bias", (out,))
        add(g + "attn_sinks.weight", h + "self_attn.sinks", (config.integer("num_attention_heads"),))
        add(g + "post_attention_norm.weight", h + "post_attention_layernorm.weight", (hidden,))
        add(g + "ffn_gate_inp.weight", h + "mlp.router.weight", (count, hidden))
        add(g + "ffn_gate_inp.bias", h + "mlp.router.bias", (count,))
        both = h + "mlp.experts.gate_up_proj"
        add_experts(g + "ffn_gate_exps", both, slice(0, None, 2), 2 * width, hidden)
        add_experts(g + "ffn_up_exps", both, slice(1, None, 2), 2 * width, hidden)
        add_experts(g + "ffn_down_exps", h + "mlp.experts.down_proj", slice(0, None, 1), hidden, width)
    add("output_norm.weight", "model.norm.weight", (hidden,))
    if "lm_head.weight" in tensors or not config.values.get("tie_word_embeddings", False):
        add("output.weight", "lm_head.weight", (vocabulary, hidden), dense)
    surplus = sorted(tensors.keys() - used)
    if surplus:
        raise Fault(f"the checkpoint has tensors that gpt-oss does not: {', '.join(surplus[:8])}")
    return result


def add_hyperparameters(writer: gguf.GGUFWriter, config: Config):
    p = "gpt-oss."
    for key, value in (
        ("block_count", config.integer("num_hidden_layers")),
        ("context_length", config.integer("max_position_embeddings")),
        ("embedding_length", config.integer("hidden_size")),
        ("feed_forward_length", config.integer("intermediate_size")),
        ("expert_feed_forward_length", config.integer("intermediate_size")),
        ("attention.head_count", config.integer("num_attention_heads")),
        ("attention.head_count_kv", config.integer("num_key_value_heads")),
        ("attention.key_length", config.integer("head_dim")),
        ("attention.value_length", config.integer("head_dim")),
        ("attention.sliding_window", config.integer("sliding_window")),
        ("expert_count", config.integer("num_local_experts")),
        ("expert_used_count", config.integer("num_experts_per_tok", "experts_per_token")),
        ("rope.scaling.original_context_length", int(config.rope_number("original_max_position_embeddings"))),
    ):
        writer.add_uint32(p + key, value)
    epsilon = config.values.get("rms_norm_eps", 1e-5)
    writer.add_float32(p + "attention.layer_norm_rms_epsilon", epsilon)
    writer.add_float32(p + "rope.freq_base", config.rope_number("rope_theta"))
    writer.add_string(p + "rope.scaling.type", "yarn")
    writer.add_float32(p + "rope.scaling.factor", config.rope_number("factor"))
    sliding = config.sliding()
    if sliding != [layer % 2 == 0 for layer in range(len(sliding))]:
        writer.add_array(p + "attention.sliding_window_pattern", sliding)
    for ours, theirs, usual in (("yarn_beta_fast", "beta_fast", 32.0), ("yarn_beta_slow", "beta_slow", 1.0)):
        if config.rope.get(theirs, usual) != usual:
            writer.add_float32(f"{p}rope.scaling.{ours}", config.rope_number(theirs))


def _read_json(path: pathlib.Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def tokenizer_roles(folder: pathlib.Path, config: Config) -> dict:
    generation, roles = _read_json(folder / "generation_config.json"), {}
    for role, key in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")):
        value = config.values.get(key, generation.get(key))
        value = generation.get(key) if value is None else value
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, int):
            roles[role] = value
    return roles


def convert(
    folder: pathlib.Path,
    path: pathlib.Path,
    dense="Q8_0",
    experts="MXFP4",
    name=None,
    license=None,
    progress=no_progress,
):
    """Writes `path`; raises Fault for what the user can mend."""
    config, tensors = Config(folder), open_folder(folder)
    planned = plan(config, tensors, Type[dense], Type[experts])
    tokenizer = _read_json(folder / "tokenizer.json")
    if not tokenizer:
        raise Fault(f"{folder / 'tokenizer.json'}: not found")
    writer = gguf.GGUFWriter(path=None, arch="gpt-oss")
    writer.add_type("model")
    writer.add_name(name or folder.resolve().name)
    if license:
        writer.add_license(license)
    add_hyperparameters(writer, config)
    file_types = {"MXFP4": "MOSTLY_MXFP4_MOE", "BF16": "MOSTLY_BF16", "F16": "MOSTLY_F16", "F32": "ALL_F32"}
    writer.add_file_type(gguf.LlamaFileType[file_types.get(experts, "MOSTLY_Q8_0")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    size = config.integer("vocab_size")
    add_tokenizer(writer, tokenizer, folder / "tokenizer.json", size, tokenizer_roles(folder, config))
    template = folder / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
    write_tensors(writer, planned, path, progress)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument(
        "--dense",
        default="Q8_0",
        choices=["Q8_0", "BF16", "F16", "F32"],
        help="of embedding, attention and head (Q8_0)",
    )
    parser.add_argument(
        "--experts", default="MXFP4", choices=["MXFP4", "Q8_0", "BF16", "F16", "F32"], help="(MXFP4)"
    )
    parser.add_argument("--name", help="general.name (the folder's)")
    parser.add_argument("--license", help="general.license, such as apache-2.0")
    options = parser.parse_args()
    try:
        convert(
            options.checkpoint,
            options.out,
            options.dense,
            options.experts,
            options.name,
            options.license,
            terminal_progress(),
        )
    except (Fault, OSError) as fault:
        sys.exit(f"error: {fault}")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
