"""Makes and checks what the tokenizer tests in tests/text compare with.

    pip install tiktoken==0.12.0 tokenizers==0.23.3 gguf==0.19.0
    python3 tests/reference/tokenizer_goldens.py SMOLLM2.gguf

Writes tests/data/text/scripts-goldens.json: hashes of the ids of a text of 1 MB in ten scripts, which the tests
make by the same rules as scripts_text() below; the ids of o200k_base and r50k_base are tiktoken's, those of SmolLM2
come from Hugging Face's tokenizers, built from the vocabulary of the GGUF given.
Writes tests/data/text/smollm-goldens.jsonl: SmolLM2's ids of the texts in tokenizer-goldens.jsonl, line by line.
Checks the ids in tokenizer-goldens.jsonl with tiktoken.
"""

import base64
import json
import os
import pathlib
import sys
import tempfile

import gguf
import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenizer_gguf import ALPHABET
from tokenizer_o200k import fetch_ranks

DATA = pathlib.Path(__file__).resolve().parents[1] / "data/text"
TEXT_BYTES = 1_000_000
SEGMENT = 1024  # ids under one hash

# Ranges of code points, first and last; tests/text/scripts_text.hpp has the same tables.
# fmt: off
SCRIPTS = [
    [(0x41, 0x5A), (0x61, 0x7A), (0x61, 0x7A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)],  # Latin
    [(0x410, 0x42F), (0x430, 0x44F), (0x430, 0x44F), (0x400, 0x52F)],                           # Cyrillic
    [(0x391, 0x3A9), (0x3B1, 0x3C9), (0x370, 0x3FF), (0x1F00, 0x1FFF)],                         # Greek
    [(0x620, 0x64A), (0x620, 0x64A), (0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF)],           # Arabic
    [(0x5D0, 0x5EA), (0x5D0, 0x5EA), (0x590, 0x5FF)],                                           # Hebrew
    [(0x904, 0x939), (0x93A, 0x94F), (0x900, 0x97F)],                                           # Devanagari
    [(0xE01, 0xE2E), (0xE2F, 0xE4E), (0xE01, 0xE5B)],                                           # Thai
    [(0x4E00, 0x9FFF), (0x4E00, 0x4FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF)],                 # Han
    [(0xAC00, 0xD7A3), (0xAC00, 0xD7A3), (0x1100, 0x11FF)],                                     # Hangul
    [(0x3041, 0x3096), (0x30A1, 0x30FA), (0x3040, 0x30FF), (0xFF66, 0xFF9F)],                   # Kana
]
SYMBOLS = [(0x1F300, 0x1F6FF), (0x300, 0x36F), (0x2010, 0x205E), (0x2150, 0x218B), (0x21, 0x2F), (0x3A, 0x40),
           (0x5B, 0x60)]
DIGITS = [(0x30, 0x39), (0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0xFF10, 0xFF19)]
GAPS = [" ", " ", " ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\t", " \n", "\n ",
        "\u00A0", "\u3000", "\u2028", "\u0085", " \u0085 ", ", ", ". ", "-", "/", "", ""]
ENDINGS = ["'s", "'S", "'\u017F", "'t", "'ll", "'LL", "'lL", "'re", "'vE", "'m", "'D", "'x", "'", "\u2019s", "!/",
           "?\r\n/", "...\n", "//", "\uFEFF", "\u180E", "\u200D", "\uFE0F", "\u0301", "\u017F", "\u212A", "(", ")",
           "_", "=>", "<|end|>"]
# fmt: on


class Random:
    """Knuth's linear congruential generator; the upper bits are used."""

    def __init__(self, seed: int):
        self.state = seed

    def below(self, limit: int) -> int:
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit

    def pick(self, items: list):
        return items[self.below(len(items))]

    def character(self, ranges: list) -> str:
        first, last = self.pick(ranges)
        return chr(first + self.below(last - first + 1))


def scripts_text() -> str:
    random = Random(2024)
    text, size = [], 0
    while size < TEXT_BYTES:
        script = random.pick(SCRIPTS)
        for _ in range(1 + random.below(20)):
            kind = random.below(16)
            ranges = DIGITS if kind == 0 else SYMBOLS if kind == 1 else script
            word = "".join(random.character(ranges) for _ in range(1 + random.below(9)))
            if random.below(6) == 0:
                word += random.pick(ENDINGS)
            word += random.pick(GAPS)
            text.append(word)
            size += len(word.encode())
    return "".join(text)


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def hashes(ids: list[int]) -> dict:
    segments = [ids[i : i + SEGMENT] for i in range(0, len(ids), SEGMENT)]
    return {
        "ids": len(ids),
        "hashes": [f"{fnv(b''.join(i.to_bytes(4, 'little') for i in segment)):016x}" for segment in segments],
    }


def tiktoken_encodings() -> dict:
    """o200k_base and r50k_base, their rank files taken from where the tests have them."""
    vocabulary = json.loads((DATA / "gpt2-vocab.json").read_text())
    byte_of = {character: byte for byte, character in enumerate(ALPHABET)}
    gpt2 = {bytes(byte_of[c] for c in token): i for token, i in vocabulary.items() if i < 50256}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        for name, ranks in (
            ("fb374d419588a4632f3f557e76b4b70aebbca790", fetch_ranks()),
            ("0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4", gpt2),
        ):
            lines = (
                f"{base64.b64encode(token).decode()} {rank}\n"
                for token, rank in sorted(ranks.items(), key=lambda x: x[1])
            )
            pathlib.Path(folder, name).write_text("".join(lines))
        return {"o200k": tiktoken.get_encoding("o200k_base"), "gpt2": tiktoken.get_encoding("r50k_base")}


def smollm_tokenizer(path: str) -> Tokenizer:
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    encodings = tiktoken_encodings()
    smollm = smollm_tokenizer(sys.argv[1])
    texts = [json.loads(line) for line in (DATA / "tokenizer-goldens.jsonl").read_text().split("\n") if line]
    for number, entry in enumerate(texts):
        for name, encoding in encodings.items():
            if encoding.encode_ordinary(entry["text"]) != entry[name]:
                sys.exit(f"tokenizer-goldens.jsonl line {number + 1}: {name} differs from tiktoken")
    known = set(smollm.get_vocab())
    with (DATA / "smollm-goldens.jsonl").open("w") as out:
        for entry in texts:
            # Without a token for each byte, Hugging Face drops what it cannot write; gg refuses such a text.
            whole = all(ALPHABET[byte] in known for byte in entry["text"].encode())
            ids = smollm.encode(entry["text"]).ids if whole else None
            out.write(json.dumps(ids, separators=(",", ":")) + "\n")

    text = scripts_text()
    ids = {name: encoding.encode_ordinary(text) for name, encoding in encodings.items()}
    ids["smollm"] = smollm.encode(text).ids
    golden = {"text_bytes": len(text.encode()), "text_hash": f"{fnv(text.encode()):016x}", "segment": SEGMENT}
    golden |= {name: hashes(list_of_ids) for name, list_of_ids in ids.items()}
    (DATA / "scripts-goldens.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
