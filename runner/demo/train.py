#!/usr/bin/env python3
"""Trains the two bundled models and writes them, with their figures, in one command:

    python3 runner/demo/train.py --corpus FOLDER --out FOLDER

--corpus holds austen.txt, kjv.txt and mobydick.txt (README.md says what they are). Written to --out:

    demo-gpt-oss.gguf   experts MXFP4, dense matrices Q8_0, the rest F32
    demo-gpt2.gguf      F16
    heldout.txt         the prose that was never trained on
    master/             the gpt-oss-shaped model in BF16 before quantisation, as Hugging Face checkpoints are
    checkpoint/         the same with its experts in MXFP4, in the layout of gpt-oss's checkpoints
    report.json         losses, perplexities, speed

The numbers of steps and the seeds are fixed; --minutes is a limit for slower machines, where the schedule is
shortened so that it still ends with a small learning rate.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import time
import warnings

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import corpus
import export
import vocabulary
from models import Gpt2, Gpt2Shape, GptOss, GptOssShape
from optimizer import Optimizer

SEED = 20250805


class Batches:
    """Random windows of the stream of documents, some of the stream of conversations instead."""

    def __init__(self, documents, conversations, length, rows, share, device, seed):
        self.streams = [
            torch.tensor(ids, dtype=torch.int32, device=device) for ids in (documents, conversations)
        ]
        self.length, self.rows, self.share = length, rows, share
        self.rng = np.random.default_rng(seed)
        self.window = torch.arange(length + 1, device=device)

    def next(self):
        talk = int(round(self.rows * self.share))
        pieces = []
        for stream, rows in zip(self.streams, (self.rows - talk, talk)):
            starts = torch.from_numpy(self.rng.integers(0, len(stream) - self.length - 1, rows))
            pieces.append(stream[starts.to(stream.device, non_blocking=True)[:, None] + self.window])
        ids = torch.cat(pieces).long()
        return ids[:, :-1], ids[:, 1:]


@torch.no_grad()
def mean_loss(model, ids, length: int, rows: int = 16) -> float:
    """Mean of -log p over the text in windows of `length` tokens, each predicted from its window alone."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    usable = (len(ids) - 1) // length * length
    inputs = torch.tensor(ids[:usable], device=device).view(-1, length)
    targets = torch.tensor(ids[1 : usable + 1], device=device).view(-1, length)
    for x, y in zip(inputs.split(rows), targets.split(rows)):
        total += float(cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum"))
        count += y.numel()
    model.train(was_training)
    return total / count


def rate_at(progress: float) -> float:
    """Warm-up, a plateau, then a straight line to 2 %."""
    if progress < 0.02:
        return progress / 0.02
    return 1.0 if progress < 0.35 else 0.02 + 0.98 * (1 - progress) / 0.65


def fit(name, model, batches, validation, options, decay, steps, seconds, log) -> dict:
    """Trains; leaves the averaged weights of the best validation loss in the model."""
    optimizer = Optimizer(model, options.rate, decay, options.adam_rate, options.adam_decay, options.average)
    model.train()
    if options.device == "cuda":
        model.compile()
    begin, best, history, recent = time.time(), (math.inf, 0, None), [], []
    warm = begin
    for step in range(1, steps + 1):
        progress = max(step / steps, (time.time() - warm) / max(seconds - (warm - begin), 1.0))
        x, y = batches.next()
        if options.noise:
            other = x.flatten()[torch.randint(x.numel(), x.shape, device=x.device)]
            x = torch.where(torch.rand(x.shape, device=x.device) < options.noise, other, x)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda"):
            loss, predicted = model.loss(x, y)
        loss.backward()
        optimizer.step(rate_at(min(progress, 1.0)))
        recent.append(predicted.detach())
        if step == 1 and options.device == "cuda":
            torch.cuda.synchronize()
            warm = time.time()
            log(f"{name}: compiled in {warm - begin:.0f} s")
        if step % options.every == 0 or step == steps or progress >= 1.0:
            trained = float(torch.stack(recent).mean())
            recent.clear()
            with optimizer.averaged():
                held = mean_loss(model, validation, batches.length)
                if held < best[0]:
                    best = (held, step, [p.detach().clone() for p in model.parameters()])
            speed = batches.rows * batches.length * (step - 1) / max(time.time() - warm, 1e-9)
            history.append(
                {"step": step, "train": trained, "validation": held, "seconds": time.time() - begin}
            )
            log(
                f"{name}: step {step}/{steps}  train {trained:.4f}  validation {held:.4f}"
                f"  {speed / 1e3:.0f}k tok/s  {time.time() - begin:.0f} s"
            )
        if progress >= 1.0:
            break
    with torch.no_grad():
        for p, value in zip(model.parameters(), best[2]):
            p.copy_(value)
    model.eval()
    return {
        "steps": step,
        "best_step": best[1],
        "validation_loss": best[0],
        "tokens_per_step": batches.rows * batches.length,
        "tokens_per_second": round(speed),
        "compile_seconds": warm - begin,
        "history": history,
    }


def continuation(model, tokenizer, prompt: str, count: int) -> str:
    ids = tokenizer.encode(prompt).ids
    with torch.no_grad():
        for _ in range(count):
            ids.append(
                int(model(torch.tensor([ids], device=next(model.parameters()).device))[0, -1].argmax())
            )
    return tokenizer.decode(ids)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0, help="limit of the whole command (9)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=16, help="windows a step")
    parser.add_argument("--length", type=int, default=2048, help="tokens a window")
    parser.add_argument("--dropout", type=float, default=0.4, help="half of it in the GPT-2-shaped model")
    parser.add_argument("--noise", type=float, default=0.0, help="share of inputs replaced by other tokens")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--decay", type=float, default=1.0)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--adam-decay", type=float, default=0.1)
    parser.add_argument("--average", type=float, default=0.995)
    parser.add_argument("--talk", type=float, default=0.1, help="share of windows of conversations")
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--gpt2-steps", type=int, default=4000)
    parser.add_argument("--gpt2-decay", type=float, default=0.3)
    parser.add_argument("--gpt2-share", type=float, default=0.2, help="of the time limit")
    parser.add_argument("--tiny", action="store_true", help="small shapes, for trying the script on a CPU")
    return parser.parse_args()


def prepare(options, log):
    books = corpus.read_books(options.corpus)
    train, validation, held_out = corpus.split(books)
    talks = corpus.conversations(train, 5000, SEED)
    talk_text = ["".join(text for text, special in turns if not special) for turns in talks[:300]]
    size = 512 if options.tiny else GptOssShape.vocabulary
    tokenizer = vocabulary.train([document.text() for document in train] + talk_text, size)
    streams = vocabulary.encode_documents(tokenizer, train), vocabulary.encode_conversations(tokenizer, talks)
    texts = corpus.plain(validation), corpus.plain(held_out)
    held = [tokenizer.encode(text).ids for text in texts]
    log(
        f"data: {len(books)} books, {sum(len(d.text()) for d in train)} characters to train on; tokens: "
        f"{len(streams[0])} of prose, {len(streams[1])} of conversations, {len(held[0])} for validation, "
        f"{len(held[1])} held out"
    )
    return tokenizer, streams, held, texts[1]


def main():
    options = arguments()
    begin = time.time()
    lines = []

    def log(line):
        lines.append(f"[{time.time() - begin:5.0f} s] {line}")
        print(lines[-1], flush=True)

    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision("highest")
    warnings.filterwarnings("ignore", module=r"torch\._inductor")
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer, streams, (validation, held_out), held_out_text = prepare(options, log)
    (options.out / "heldout.txt").write_text(held_out_text, encoding="utf-8")
    shape, twin = GptOssShape(), Gpt2Shape()
    if options.tiny:
        shape = GptOssShape(
            vocabulary=512, layers=2, hidden=64, heads=4, head_dim=16, experts=4, width=64, window=16
        )
        twin = Gpt2Shape(vocabulary=512, layers=2, hidden=64, heads=2, context=256)
    left = options.minutes * 60 - 50 - (time.time() - begin)

    torch.manual_seed(SEED)
    model = GptOss(shape, options.dropout).to(options.device)
    batches = Batches(*streams, options.length, options.rows, options.talk, options.device, SEED)
    report = {
        "shape": dataclasses.asdict(shape),
        "parameters": sum(p.numel() for p in model.parameters()),
        "options": {key: value for key, value in vars(options).items() if isinstance(value, (int, float))},
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
    }
    report["gpt-oss"] = fit(
        "gpt-oss",
        model,
        batches,
        validation,
        options,
        options.decay,
        options.steps,
        left * (1 - options.gpt2_share),
        log,
    )
    report["gpt-oss"]["heldout"] = export.write_gpt_oss(
        options.out, model, tokenizer, held_out, mean_loss, log
    )
    log("gpt-oss writes: " + continuation(model, tokenizer, "It was a truth", 120))

    if options.gpt2_steps == 0:
        (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
        return
    torch.manual_seed(SEED)
    model = Gpt2(twin, options.dropout * 0.5).to(options.device)
    length = min(options.length, twin.context)
    batches = Batches(
        *streams, length, options.rows * options.length // length, options.talk, options.device, SEED
    )
    left = options.minutes * 60 - 15 - (time.time() - begin)
    report["gpt2"] = fit(
        "gpt2", model, batches, validation, options, options.gpt2_decay, options.gpt2_steps, left, log
    )
    report["gpt2"]["heldout"] = export.write_gpt2(options.out, model, tokenizer, held_out, mean_loss, log)
    log("gpt2 writes: " + continuation(model, tokenizer, "It was a truth", 120))

    report["seconds"] = time.time() - begin
    log("done")
    report["log"] = lines
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
