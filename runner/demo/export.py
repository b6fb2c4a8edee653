"""Trained models to files, and their perplexities as stored."""

import json
import math
import pathlib

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

import convert_hf
import gguf_output
from gguf_tokenizer import add_tokenizer
from quantize import mxfp4
from vocabulary import SPECIALS

LICENSE = "mit"
SHARD_BYTES = 15 << 20
TEMPLATE = (
    "{%- for message in messages -%}<|start|>{{ message.role }}"
    "{%- if message.role == 'assistant' -%}<|channel|>final{%- endif -%}"
    "<|message|>{{ message.content }}<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}"
)


def master_state(model) -> dict:
    """Hugging Face's names, BF16, experts as [experts, in, out] with gate and up columns in turn."""
    state = {
        "model.embed_tokens.weight": model.embedding,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head,
    }
    for i, block in enumerate(model.blocks):
        h, a, e = f"model.layers.{i}.", block.attention, block.experts
        state[h + "input_layernorm.weight"] = block.norm1.weight
        for name in "qkvo":
            linear = getattr(a, name)
            state[f"{h}self_attn.{name}_proj.weight"], state[f"{h}self_attn.{name}_proj.bias"] = (
                linear.weight,
                linear.bias,
            )
        state[h + "self_attn.sinks"] = a.sinks
        state[h + "post_attention_layernorm.weight"] = block.norm2.weight
        state[h + "mlp.router.weight"], state[h + "mlp.router.bias"] = e.router.weight, e.router.bias
        both = torch.stack([e.gate, e.up], dim=2).flatten(1, 2)
        state[h + "mlp.experts.gate_up_proj"] = both.transpose(1, 2)
        state[h + "mlp.experts.gate_up_proj_bias"] = torch.stack([e.gate_bias, e.up_bias], dim=2).flatten(1)
        state[h + "mlp.experts.down_proj"] = e.down.transpose(1, 2)
        state[h + "mlp.experts.down_proj_bias"] = e.down_bias
    return {name: value.detach().bfloat16().cpu().contiguous() for name, value in state.items()}


def quantised_state(master: dict) -> dict:
    """The same with the experts in blocks [experts, out, in / 32, 16] and scales, neighbours in one byte."""
    state = {}
    for name, value in master.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            state[name] = value
            continue
        rows = value.float().transpose(1, 2).contiguous().numpy()
        raw = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.MXFP4).reshape(*rows.shape[:2], -1, 17)
        codes = np.concatenate([raw[..., 1:] & 15, raw[..., 1:] >> 4], axis=-1)
        state[name + "_blocks"] = torch.from_numpy(codes[..., 0::2] | codes[..., 1::2] << 4)
        state[name + "_scales"] = torch.from_numpy(raw[..., 0].copy())
    return state


def save_checkpoint(folder: pathlib.Path, state: dict, config: dict, tokenizer):
    """config.json, tokenizer.json and the tensors in files of limited size."""
    folder.mkdir(parents=True, exist_ok=True)
    shards, size = [{}], 0
    for name, value in state.items():
        if shards[-1] and size + value.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    files = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        files.update({name: file for name in shard})
    total = sum(value.nbytes for value in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    ids = {name: tokenizer.token_to_id(name) for name in SPECIALS}
    endings = [ids["<|return|>"], ids["<|endoftext|>"], ids["<|call|>"]]
    roles = {
        "bos_token_id": ids["<|startoftext|>"],
        "eos_token_id": ids["<|return|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    (folder / "config.json").write_text(json.dumps({**config, **roles}, indent=1) + "\n")
    generation = {**roles, "eos_token_id": endings, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|return|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE + "\n")


def stored_values(path: pathlib.Path) -> dict:
    """Every tensor of a GGUF, decoded to float32."""
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        for tensor in gguf.GGUFReader(path).tensors
    }


@torch.no_grad()
def load_gpt_oss(model, values: dict):
    """Puts a file's values into the model; norms, sinks and biases are already there."""

    def put(parameter, name):
        parameter.copy_(torch.from_numpy(values[name]).view(parameter.shape))

    put(model.embedding, "token_embd.weight")
    put(model.head, "output.weight")
    for i, block in enumerate(model.blocks):
        for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output")):
            put(getattr(block.attention, ours).weight, f"blk.{i}.attn_{theirs}.weight")
        for name in ("gate", "up", "down"):
            put(getattr(block.experts, name), f"blk.{i}.ffn_{name}_exps.weight")


def _perplexity(loss: float) -> float:
    return round(math.exp(loss), 4)


@torch.no_grad()
def write_gpt_oss(out, model, tokenizer, held_out, mean_loss, log) -> dict:
    """All files of the gpt-oss-shaped model; leaves the values of demo-gpt-oss.gguf in it. Returns
    perplexities in windows of 1024 tokens and of the whole context."""
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    master, config = master_state(model), model.shape.hugging_face()
    save_checkpoint(out / "master", master, config, tokenizer)
    quantisation = {
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        }
    }
    save_checkpoint(out / "checkpoint", quantised_state(master), {**config, **quantisation}, tokenizer)
    convert_hf.convert(
        out / "checkpoint", out / "demo-gpt-oss.gguf", name="gg demo, gpt-oss shape", license=LICENSE
    )
    convert_hf.convert(out / "master", out / "requantised.gguf", experts="Q8_0")
    result = {"tokens": len(held_out)}

    def measure(name):
        for length in (1024, model.shape.context):
            result[f"{name}, windows of {length}"] = _perplexity(mean_loss(model, held_out, length))

    in_loop = [mxfp4(block.experts.down) for block in model.blocks]
    model.quantised = False
    measure("BF16 master")
    load_gpt_oss(model, stored_values(out / "requantised.gguf"))
    measure("Q8_0")
    load_gpt_oss(model, stored_values(out / "demo-gpt-oss.gguf"))
    measure("MXFP4 and Q8_0")
    for block, expected in zip(model.blocks, in_loop):
        assert torch.equal(block.experts.down, expected), "the file's MXFP4 is not that of the training"
    (out / "requantised.gguf").unlink()
    result["bytes"] = (out / "demo-gpt-oss.gguf").stat().st_size
    log(f"gpt-oss held-out: {result}")
    return result


@torch.no_grad()
def write_gpt2(out, model, tokenizer, held_out, mean_loss, log) -> dict:
    """demo-gpt2.gguf: matrices in F16, the rest F32."""
    s, path = model.shape, out / "demo-gpt2.gguf"
    result = {"tokens": len(held_out), "float32": _perplexity(mean_loss(model, held_out, s.context))}
    writer = gguf.GGUFWriter(path=None, arch="gpt2")
    writer.add_type("model")
    writer.add_name("gg demo, GPT-2 shape")
    writer.add_license(LICENSE)
    for key, value in (
        ("block_count", s.layers),
        ("context_length", s.context),
        ("embedding_length", s.hidden),
        ("feed_forward_length", 4 * s.hidden),
        ("attention.head_count", s.heads),
    ):
        writer.add_uint32("gpt2." + key, value)
    writer.add_float32("gpt2.attention.layer_norm_epsilon", s.epsilon)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    roles = {"bos": tokenizer.token_to_id("<|startoftext|>"), "eos": tokenizer.token_to_id("<|endoftext|>")}
    add_tokenizer(writer, json.loads(tokenizer.to_str()), "tokenizer", s.vocabulary, roles)
    planned = []

    def add(name, parameter, half):
        if half:
            parameter.copy_(parameter.half())
        kind = gguf.GGMLQuantizationType.F16 if half else gguf.GGMLQuantizationType.F32
        values = parameter.detach().float().cpu().numpy()
        encoded = gguf_output.encode(values, kind, name)
        planned.append(gguf_output.Planned(name, kind, values.shape, lambda: iter([encoded])))

    add("token_embd.weight", model.embedding, True)
    add("position_embd.weight", model.positions, False)
    for i, block in enumerate(model.blocks):
        for name, module in (
            ("attn_norm", block.norm1),
            ("attn_qkv", block.qkv),
            ("attn_output", block.o),
            ("ffn_norm", block.norm2),
            ("ffn_up", block.up),
            ("ffn_down", block.down),
        ):
            add(f"blk.{i}.{name}.weight", module.weight, module.weight.ndim == 2)
            add(f"blk.{i}.{name}.bias", module.bias, False)
    add("output_norm.weight", model.norm.weight, False)
    add("output_norm.bias", model.norm.bias, False)
    gguf_output.write_tensors(writer, planned, path, gguf_output.no_progress)
    result["F16"] = _perplexity(mean_loss(model, held_out, s.context))
    result["bytes"] = path.stat().st_size
    log(f"gpt2 held-out: {result}")
    return result
