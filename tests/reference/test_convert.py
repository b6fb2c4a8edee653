#!/usr/bin/env python3
"""Round trip of runner/demo/convert_hf.py: random small checkpoints in gpt-oss's layout to GGUF and back.

    python3 -m unittest tests/reference/test_convert.py

With GG_RUNNER=path/to/gg, the runner's log-probabilities of the result are compared with those of
transformers, which reads the checkpoint itself (packages of requirements.txt).
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "runner/demo")]
sys.dont_write_bytecode = True

import convert_hf  # noqa: E402
from gguf_tokenizer import O200K_PATTERN  # noqa: E402
from safetensors_reader import Fault  # noqa: E402
from tokenizer_gguf import ALPHABET  # noqa: E402

torch.set_num_threads(1)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, WIDTH, VOCABULARY = 3, 64, 4, 2, 16, 3, 96, 288
CONFIG = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "sliding_window": 8,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 150000,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        "original_max_position_embeddings": 128,
    },
    "eos_token_id": 261,
    "pad_token_id": 260,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    },
}


def tokenizer_json() -> dict:
    vocab = {text: id for id, text in enumerate(sorted(ALPHABET))}
    vocab.update({"th": 256, "the": 257, "\u0120the": 258})
    added = [
        {"id": 260 + i, "content": text, "special": True}
        for i, text in enumerate(("<|endoftext|>", "<|return|>"))
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": O200K_PATTERN},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    for entry in added:
        entry.update(single_word=False, lstrip=False, rstrip=False, normalized=False)
    return {
        "version": "1.0",
        "added_tokens": added,
        "decoder": level,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["t", "h"], ["th", "e"], "\u0120 the"]},
    }


def random_checkpoint(seed: int) -> dict:
    """Tensors as openai/gpt-oss-20b names and lays them out; every code of MXFP4 occurs."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape, gain=1.0, mean=0.0):
        return (mean + torch.randn(*shape, generator=random) * gain).bfloat16()

    def blocks(rows, inputs):
        shape = (EXPERTS, rows, inputs // 32)
        codes = torch.randint(0, 256, (*shape, 16), generator=random, dtype=torch.uint8)
        return codes, torch.randint(119, 124, shape, generator=random, dtype=torch.uint8)

    state = {
        "model.embed_tokens.weight": normal(VOCABULARY, HIDDEN),
        "model.norm.weight": normal(HIDDEN, mean=1),
        "lm_head.weight": normal(VOCABULARY, HIDDEN, gain=0.3),
    }
    for layer in range(LAYERS):
        h = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{h}{name}.weight"] = normal(HIDDEN, gain=0.2, mean=1)
        for name, out, inputs in (
            ("q", HEADS * HEAD_DIM, HIDDEN),
            ("k", KV_HEADS * HEAD_DIM, HIDDEN),
            ("v", KV_HEADS * HEAD_DIM, HIDDEN),
            ("o", HIDDEN, HEADS * HEAD_DIM),
        ):
            state[f"{h}self_attn.{name}_proj.weight"] = normal(out, inputs, gain=inputs**-0.5)
            state[f"{h}self_attn.{name}_proj.bias"] = normal(out, gain=0.3)
        state[h + "self_attn.sinks"] = normal(HEADS)
        state[h + "mlp.router.weight"], state[h + "mlp.router.bias"] = normal(EXPERTS, HIDDEN), normal(
            EXPERTS
        )
        for name, rows, inputs in (("gate_up_proj", 2 * WIDTH, HIDDEN), ("down_proj", HIDDEN, WIDTH)):
            path = f"{h}mlp.experts.{name}"
            state[path + "_blocks"], state[path + "_scales"] = blocks(rows, inputs)
            state[path + "_bias"] = normal(EXPERTS, rows, gain=0.3)
    return state


def decoded(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[experts, rows, inputs]: byte k of a block holds elements 2k (low nibble) and 2k + 1."""
    values = np.empty((*blocks.shape[:-1], 32), np.float32)
    values[..., 0::2], values[..., 1::2] = E2M1[blocks & 15], E2M1[blocks >> 4]
    return (values * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(*blocks.shape[:2], -1)


def save(folder: pathlib.Path, state: dict, config=CONFIG, shards: int = 1):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    names, files = list(state), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file(
            {name: state[name].contiguous() for name in names[i::shards]}, folder / file, {"format": "pt"}
        )
        files.update(dict.fromkeys(names[i::shards], file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def stored(path: pathlib.Path) -> dict:
    return {
        tensor.name: (tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


class RoundTrip(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.checkpoint, self.out = self.folder / "checkpoint", self.folder / "out.gguf"
        self.state = random_checkpoint(7)

    def expected(self) -> dict:
        """GGUF's names and the values that the checkpoint means."""
        values = {
            name: tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
            for name, tensor in self.state.items()
        }
        result = {
            "token_embd.weight": values["model.embed_tokens.weight"],
            "output.weight": values["lm_head.weight"],
            "output_norm.weight": values["model.norm.weight"],
        }
        for layer in range(LAYERS):
            g, h = f"blk.{layer}.", f"model.layers.{layer}."
            result[g + "attn_norm.weight"] = values[h + "input_layernorm.weight"]
            result[g + "post_attention_norm.weight"] = values[h + "post_attention_layernorm.weight"]
            result[g + "attn_sinks.weight"] = values[h + "self_attn.sinks"]
            for part in ("weight", "bias"):
                result[f"{g}ffn_gate_inp.{part}"] = values[f"{h}mlp.router.{part}"]
                for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
                    result[f"{g}attn_{ours}.{part}"] = values[f"{h}self_attn.{theirs}_proj.{part}"]
            e = h + "mlp.experts."
            both = decoded(values[e + "gate_up_proj_blocks"], values[e + "gate_up_proj_scales"])
            bias = values[e + "gate_up_proj_bias"]
            for name, start in (("gate", 0), ("up", 1)):
                result[f"{g}ffn_{name}_exps.weight"] = both[:, start::2]
                result[f"{g}ffn_{name}_exps.bias"] = bias[:, start::2]
            result[g + "ffn_down_exps.weight"] = decoded(
                values[e + "down_proj_blocks"], values[e + "down_proj_scales"]
            )
            result[g + "ffn_down_exps.bias"] = values[e + "down_proj_bias"]
        return result

    def check_tensors(self, dense: str):
        found, expected = stored(self.out), self.expected()
        self.assertEqual(set(found), set(expected))
        for name, values in expected.items():
            kind, got = found[name]
            if name.endswith("_exps.weight"):
                wanted = "MXFP4"
            elif name in ("token_embd.weight", "output.weight") or ".attn_" in name and values.ndim == 2:
                wanted = dense
                type_ = gguf.GGMLQuantizationType[dense]
                values = gguf.quants.dequantize(gguf.quants.quantize(values, type_), type_)
            else:
                wanted = "F32"
            self.assertEqual(kind, wanted, name)
            np.testing.assert_array_equal(got, values, err_msg=name)

    def test_every_tensor(self):
        for dense in ("Q8_0", "BF16", "F16", "F32"):
            with self.subTest(dense=dense):
                save(self.checkpoint, self.state)
                convert_hf.convert(self.checkpoint, self.out, dense=dense)
                self.check_tensors(dense)

    def test_shards(self):
        save(self.checkpoint, self.state, shards=3)
        convert_hf.convert(self.checkpoint, self.out)
        self.check_tensors("Q8_0")

    def test_extreme_scales_and_negative_zero(self):
        name = "model.layers.1.mlp.experts.down_proj"
        self.state[name + "_scales"][0, 0, :3] = torch.tensor([0, 1, 254], dtype=torch.uint8)
        self.state[name + "_blocks"][0, 0, 0] = 0x88
        save(self.checkpoint, self.state)
        convert_hf.convert(self.checkpoint, self.out)
        tensor = next(t for t in gguf.GGUFReader(self.out).tensors if t.name == "blk.1.ffn_down_exps.weight")
        row = tensor.data[0, 0].reshape(3, 17)
        self.assertEqual(list(row[:, 0]), [0, 1, 254])
        self.assertTrue((row[0, 1:] == 0x88).all())

    def test_keys(self):
        save(self.checkpoint, self.state)
        convert_hf.convert(self.checkpoint, self.out, name="small", license="mit")
        fields = {name: field.contents() for name, field in gguf.GGUFReader(self.out).fields.items()}
        expected = {
            "general.architecture": "gpt-oss",
            "general.name": "small",
            "general.license": "mit",
            "gpt-oss.block_count": LAYERS,
            "gpt-oss.context_length": 4096,
            "gpt-oss.embedding_length": HIDDEN,
            "gpt-oss.feed_forward_length": WIDTH,
            "gpt-oss.expert_feed_forward_length": WIDTH,
            "gpt-oss.attention.head_count": HEADS,
            "gpt-oss.attention.head_count_kv": KV_HEADS,
            "gpt-oss.attention.key_length": HEAD_DIM,
            "gpt-oss.attention.value_length": HEAD_DIM,
            "gpt-oss.attention.sliding_window": 8,
            "gpt-oss.expert_count": EXPERTS,
            "gpt-oss.expert_used_count": 2,
            "gpt-oss.rope.freq_base": 150000.0,
            "gpt-oss.rope.scaling.type": "yarn",
            "gpt-oss.rope.scaling.factor": 32.0,
            "gpt-oss.rope.scaling.original_context_length": 128,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-4o",
            "tokenizer.ggml.eos_token_id": 261,
            "tokenizer.ggml.padding_token_id": 260,
            "tokenizer.ggml.merges": ["t h", "th e", "\u0120 the"],
        }
        self.assertEqual({key: fields.get(key) for key in expected}, expected)
        tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
        self.assertEqual((len(tokens), len(types)), (VOCABULARY, VOCABULARY))
        self.assertEqual((tokens[257], types[257], tokens[261], types[261]), ("the", 1, "<|return|>", 3))
        self.assertEqual((tokens[270], types[270]), ("[PAD270]", 5))
        self.assertNotIn("gpt-oss.attention.sliding_window_pattern", fields)

    def test_plain_experts_are_encoded(self):
        expected = self.expected()
        for layer in range(LAYERS):
            g, e = f"blk.{layer}.ffn_", f"model.layers.{layer}.mlp.experts."
            both = np.empty((EXPERTS, 2 * WIDTH, HIDDEN), np.float32)
            both[:, 0::2], both[:, 1::2] = expected[g + "gate_exps.weight"], expected[g + "up_exps.weight"]
            for name, rows in (("gate_up_proj", both), ("down_proj", expected[g + "down_exps.weight"])):
                del self.state[f"{e}{name}_blocks"], self.state[f"{e}{name}_scales"]
                self.state[e + name] = torch.from_numpy(rows).transpose(1, 2).bfloat16()
        save(self.checkpoint, self.state)
        for kind in ("MXFP4", "BF16", "Q8_0"):
            convert_hf.convert(self.checkpoint, self.out, experts=kind)
            type_ = gguf.GGMLQuantizationType[kind]
            for name, (stored_kind, got) in stored(self.out).items():
                if name.endswith("_exps.weight"):
                    self.assertEqual(stored_kind, kind)
                    wanted = gguf.quants.dequantize(gguf.quants.quantize(expected[name], type_), type_)
                    np.testing.assert_array_equal(got, wanted, err_msg=name)

    def refused(self, *words, config=CONFIG, change=None):
        save(self.checkpoint, self.state, config, shards=2)
        if change:
            change()
        with self.assertRaises(Fault) as caught:
            convert_hf.convert(self.checkpoint, self.out)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(list(self.folder.glob("out*")), [])

    def test_scale_255_is_refused(self):
        self.state["model.layers.2.mlp.experts.gate_up_proj_scales"][1, 4, 0] = 255
        self.refused("model.layers.2.mlp.experts.gate_up_proj", "255")

    def test_missing_tensor_is_refused(self):
        del self.state["model.layers.1.self_attn.sinks"]
        self.refused("model.layers.1.self_attn.sinks")

    def test_surplus_tensor_is_refused(self):
        self.state["model.layers.0.self_attn.q_norm.weight"] = torch.ones(HEAD_DIM)
        self.refused("model.layers.0.self_attn.q_norm.weight")

    def test_wrong_shape_is_refused(self):
        self.state["lm_head.weight"] = self.state["lm_head.weight"][:-1]
        self.refused("lm_head.weight", f"[{VOCABULARY}, {HIDDEN}]", f"[{VOCABULARY - 1}, {HIDDEN}]")

    def test_missing_and_cut_files_are_refused(self):
        file = self.checkpoint / "model-00002-of-00002.safetensors"
        self.refused(file.name, change=lambda: file.unlink())
        self.refused(file.name, "cut", change=lambda: os.truncate(file, file.stat().st_size - 1))
        self.refused(file.name, change=lambda: file.write_bytes(b"short"))

    def test_other_models_are_refused(self):
        self.refused("model_type", "llama", config={**CONFIG, "model_type": "llama"})
        self.refused(
            "truncate", config={**CONFIG, "rope_scaling": {**CONFIG["rope_scaling"], "truncate": True}}
        )
        self.refused("swiglu_limit", config={**CONFIG, "swiglu_limit": 6.0})

    def test_infinity_is_refused(self):
        self.state["model.layers.0.self_attn.q_proj.weight"][0, 0] = float("inf")
        self.refused("q_proj.weight")

    @unittest.skipUnless("GG_RUNNER" in os.environ, "GG_RUNNER is not set")
    def test_runner_agrees_with_transformers(self):
        from transformers import AutoModelForCausalLM, Mxfp4Config

        save(self.checkpoint, self.state)
        convert_hf.convert(self.checkpoint, self.out, dense="BF16")
        tokens = np.random.default_rng(3).integers(0, 259, 60).tolist()
        ids = self.folder / "ids.txt"
        ids.write_text(" ".join(map(str, tokens)))
        command = [os.environ["GG_RUNNER"], "score", "-m", str(self.out), "--tokens-file", str(ids), "--json"]
        scored = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        # quantised layers are read as transformers reads them, to plain matrices
        model = (
            AutoModelForCausalLM.from_pretrained(
                self.checkpoint,
                dtype=torch.float32,
                attn_implementation="eager",
                quantization_config=Mxfp4Config(dequantize=True),
            )
            .float()
            .eval()
        )
        with torch.no_grad():
            rows = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
        wanted = rows[range(len(tokens) - 1), tokens[1:]].numpy()
        np.testing.assert_allclose(np.array(scored["logprob"]), wanted, atol=1e-4, rtol=0)


if __name__ == "__main__":
    unittest.main()
