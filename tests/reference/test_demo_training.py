#!/usr/bin/env python3
"""What runner/demo trains is what it says: the shape is transformers' gpt-oss, the quantisation is GGUF's, and
held-out prose is held out.

    python3 -m unittest tests/reference/test_demo_training.py
"""

import pathlib
import sys
import tempfile
import unittest

import gguf
import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "runner/demo"))
sys.dont_write_bytecode = True

import corpus  # noqa: E402
import export  # noqa: E402
import optimizer  # noqa: E402
import vocabulary  # noqa: E402
from models import GptOss, GptOssShape  # noqa: E402
from quantize import mxfp4, straight_through  # noqa: E402

torch.set_num_threads(1)
SMALL = GptOssShape(
    vocabulary=320,
    layers=3,
    hidden=64,
    heads=4,
    head_dim=16,
    experts=5,
    width=96,
    window=9,
    context=256,
    original_context=64,
)


class Quantisation(unittest.TestCase):
    def test_values_are_those_of_gguf(self):
        random = torch.Generator().manual_seed(5)
        x = torch.randn(400, 64, generator=random) * torch.exp2(
            torch.randint(-30, 20, (400, 1), generator=random).float()
        )
        ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0] * 4)
        x[0, :32], x[0, 32:], x[1, :32] = ties, -ties, 0.0
        x = x.bfloat16().float()
        kind = gguf.GGMLQuantizationType.MXFP4
        wanted = gguf.quants.dequantize(gguf.quants.quantize(x.numpy(), kind), kind)
        np.testing.assert_array_equal(mxfp4(x).numpy(), wanted)

    def test_gradient_passes(self):
        x = torch.randn(4, 32, requires_grad=True)
        weight = torch.randn(4, 32)
        y = straight_through(x)
        (y * weight).sum().backward()
        torch.testing.assert_close(y.detach(), mxfp4(x.detach()), rtol=0, atol=0)
        torch.testing.assert_close(x.grad, weight, rtol=0, atol=0)


class Shape(unittest.TestCase):
    def test_logits_are_those_of_transformers(self):
        from transformers import AutoModelForCausalLM

        torch.manual_seed(3)
        model = GptOss(SMALL).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "bias" in name or "sinks" in name:
                    parameter.normal_(std=0.7)
                parameter.copy_((parameter * 1.5).bfloat16())
        model.quantised = False
        tokenizer = vocabulary.train(["a b c d e f g " * 9 + "the cat sat on the mat. " * 40], 275)
        with tempfile.TemporaryDirectory() as folder:
            export.save_checkpoint(
                pathlib.Path(folder), export.master_state(model), SMALL.hugging_face(), tokenizer
            )
            theirs = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            ).eval()
            ids = torch.randint(0, SMALL.vocabulary, (1, 150), generator=torch.Generator().manual_seed(1))
            with torch.no_grad():
                difference = (theirs(ids).logits - model(ids)).abs().max()
        self.assertLess(float(difference), 2e-4)

    def test_training_learns(self):
        torch.manual_seed(4)
        model = GptOss(SMALL, dropout=0.1)
        optimiser = optimizer.Optimizer(model, 0.02, 0.1, 3e-3, 0.1, 0.9)
        ids = torch.arange(40).repeat(2, 3)[:, :97] * 7 % 320
        losses = []
        for _ in range(15):
            loss, predicted = model.loss(ids[:, :-1], ids[:, 1:])
            loss.backward()
            optimiser.step(1.0)
            losses.append(float(predicted.detach()))
        self.assertLess(losses[-1], losses[0] - 1)


class Corpus(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        chapters = [
            f"CHAPTER {c}\n\n" + "\n\n".join(f"Line {c}.{p} of _it_\ngoes   on." for p in range(40))
            for c in ("I", "II", "III")
        ]
        novel = "{}\n\nBy Jane Austen\n\n" + "\n\n".join(chapters) + "\n\nFINIS\n\n"
        (folder / "austen.txt").write_text(novel.format("EMMA") + novel.format("PERSUASION"))
        verses = [f"{book}1:{v} Verse {book} {v}." for book in ("Ge", "1Sm") for v in range(1, 101)]
        (folder / "kjv.txt").write_text("\n".join(verses) + "\n")
        (folder / "mobydick.txt").write_text(
            "\ufeffheader\n\nCHAPTER 1. Loomings.\n\nCall me Ishmael.\n\nEnd of Project Gutenberg's Moby Dick\n"
        )
        self.books = corpus.read_books(folder)

    def test_books_are_cleaned(self):
        self.assertEqual([len(book) for book in self.books], [3, 3, 1, 1, 1])
        self.assertEqual(self.books[0][0].units[0], "Line I.0 of it goes on.")
        self.assertEqual(self.books[2][0].text()[:24], "Verse Ge 1. Verse Ge 2. ")
        self.assertEqual(self.books[4][0].text(), "Call me Ishmael.")
        self.assertNotIn("PERSUASION", corpus.plain([d for book in self.books for d in book]))

    def test_held_out_prose_is_the_end_of_every_book(self):
        train, validation, held_out = (
            [u for d in part for u in d.units] for part in corpus.split(self.books)
        )
        everything = [unit for book in self.books for document in book for unit in document.units]
        self.assertEqual(len(train) + len(validation) + len(held_out), len(everything))
        self.assertEqual(
            [u for u in held_out if "1Sm" in u], ["Verse 1Sm 98.", "Verse 1Sm 99.", "Verse 1Sm 100."]
        )
        self.assertEqual([u for u in validation if "1Sm" in u], ["Verse 1Sm 97."])
        self.assertFalse({u for u in train if "1Sm" in u} & set(held_out + validation))


if __name__ == "__main__":
    unittest.main()
