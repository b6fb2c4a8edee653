#!/usr/bin/env python3
"""Compares gg with Hugging Face transformers in float32 on the bundled models and the values that they hold.

    python3 tests/reference/demo_accuracy.py --gg build/release/runner/gg [--positions 2000] [--threads 1]
                                             [--write tests/data/demo]

For runner/demo/demo-gpt-oss.gguf and demo-gpt2.gguf, on held-out prose:
  log-probabilities of every next token: `gg score --json` against transformers, median and largest
  difference;
  greedy text: 120 tokens after each of four prompts must be the same;
--write stores what transformers says, for tests/host/demo_test.cpp, which needs no torch.
Exit code 1 if a median is above 1e-5, a difference above 1e-3 or a greedy text differs.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch

import hugging_face
from families import Case

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPTS = ("It was a", "In the beginning", "The whale", "And the king said unto her,")


def load(path: pathlib.Path):
    """transformers' model of a GGUF file, and its keys."""
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    values = {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors
    }
    family = keys["general.architecture"]

    def key(name, otherwise=0):
        return keys.get(f"{family}.{name}", otherwise)

    case = Case(
        path.stem,
        family,
        layers=key("block_count"),
        hidden=key("embedding_length"),
        heads=key("attention.head_count"),
        kv_heads=key("attention.head_count_kv"),
        head_dim=key("attention.key_length"),
        context=key("context_length"),
        ffn=key("expert_feed_forward_length", key("feed_forward_length")),
        vocabulary=len(values["token_embd.weight"]),
        experts=key("expert_count"),
        experts_used=key("expert_used_count"),
        window=key("attention.sliding_window"),
        theta=key("rope.freq_base"),
        tied="output.weight" not in values,
    )
    kind, config, state = hugging_face._FAMILIES[family](case, values)
    if family == "gpt-oss":
        config.rope_parameters.update(
            factor=key("rope.scaling.factor"),
            original_max_position_embeddings=key("rope.scaling.original_context_length"),
        )
        config.max_position_embeddings = case.context
    state["lm_head.weight"] = values["token_embd.weight" if case.tied else "output.weight"]
    model = kind(config).float().eval()
    model.load_state_dict(
        {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in state.items()}, strict=True
    )
    return model, keys


def gg(options, *arguments) -> str:
    command = [str(options.gg), *map(str, arguments), "--threads", str(options.threads)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tokenize(options, path, text_file) -> list:
    command = [str(options.gg), "tokenize", "-m", str(path), "--file", str(text_file)]
    return [
        int(x) for x in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    ]


@torch.no_grad()
def log_probabilities(model, tokens):
    return torch.log_softmax(model(torch.tensor([tokens]), use_cache=False).logits[0].double(), -1)


def compare_scores(options, path, model, keys, ids, folder, golden):
    length = min(1000, keys[keys["general.architecture"] + ".context_length"])
    differences = []
    for at in range(0, options.positions, length):
        tokens = ids[at : at + length + 1]
        file = folder / "ids.txt"
        file.write_text(" ".join(map(str, tokens)))
        scored = json.loads(gg(options, "score", "-m", path, "--tokens-file", file, "--json"))["logprob"]
        table = log_probabilities(model, tokens[:-1])
        wanted = table[range(len(tokens) - 1), tokens[1:]].numpy()
        differences.append(np.abs(np.array(scored) - wanted))
        golden.append(
            {
                "tokens": tokens,
                "logprob": [round(x, 7) for x in wanted.tolist()],
                "argmax": table.argmax(-1).tolist(),
            }
        )
    differences = np.concatenate(differences)[: options.positions]
    print(
        f"  log-probabilities, {len(differences)} positions: difference median {np.median(differences):.2e}, "
        f"largest {differences.max():.2e}"
    )
    return np.median(differences) <= 1e-5 and differences.max() <= 1e-3


@torch.no_grad()
def greedy(model, ids, count) -> list:
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def compare_greedy(options, path, model, folder) -> bool:
    same = True
    for prompt in PROMPTS:
        file, ids_file = folder / "prompt.txt", folder / "ids.txt"
        file.write_text(prompt)
        text = gg(options, "run", "-m", path, "-p", prompt, "-n", 120, "--temp", 0)
        ids = tokenize(options, path, file)
        wanted_ids = greedy(model, ids, 120)[len(ids) :]
        ids_file.write_text(" ".join(map(str, wanted_ids)))
        command = [str(options.gg), "detokenize", "-m", str(path), *map(str, wanted_ids)]
        wanted = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        equal = text.rstrip("\n") == wanted.rstrip("\n")
        same &= equal
        print(f"  greedy text after {prompt!r}: {'the same 120 tokens' if equal else 'DIFFERENT'}")
        if not equal:
            print(f"    gg           {text!r}\n    transformers {wanted!r}")
    return same


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gg", type=pathlib.Path, required=True, help="the runner")
    parser.add_argument("--positions", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=pathlib.Path, help="folder for the goldens")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fine = True
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("demo-gpt-oss", "demo-gpt2"):
            path = ROOT / f"runner/demo/{name}.gguf"
            model, keys = load(path)
            print(path.name, flush=True)
            ids = tokenize(options, path, ROOT / "runner/demo/heldout.txt")
            windows = []
            fine &= compare_scores(options, path, model, keys, ids, pathlib.Path(temporary), windows)
            if options.write:
                options.write.mkdir(parents=True, exist_ok=True)
                text = json.dumps({"model": path.name, "windows": windows}, separators=(",", ":"))
                (options.write / f"{name}.json").write_text(text + "\n")
            fine &= compare_greedy(options, path, model, pathlib.Path(temporary))
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
