"""The small byte-level BPE vocabulary of the files named *-text: bytes, some merges, the specials."""

from collections import Counter

import regex
from tokenizers import Tokenizer, models, pre_tokenizers

TEXT = (
    "The tide went out over the flats, and the boats that had been floating since the morning settled, "
    'one after another, into the mud. "It\'s the same every day," said the old man; he counted 12 of them '
    "and thought of the others, which were still at sea. Nothing moved there but the light.\n"
)

MERGES = 60
_GPT2 = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_SPECIALS = {
    "llama": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "gpt-oss": (
        "<|startoftext|>",
        "<|endoftext|>",
        "<|return|>",
        "<|constrain|>",
        "<|channel|>",
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|call|>",
    ),
}
_PADDING = {"llama": 0, "gpt-oss": 4}
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def _byte_letters() -> list:
    """GPT-2's printable stand-in for each byte: itself if printable, else the next letter from U+0100."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in own]
    return [chr(byte if byte in own else 0x100 + others.index(byte)) for byte in range(256)]


def _learn_merges() -> list:
    """Byte-pair encoding of TEXT; of equally frequent pairs the alphabetically first is merged."""
    letters = _byte_letters()
    words = [[letters[byte] for byte in word.encode()] for word in _GPT2.findall(TEXT)]
    merges = []
    while len(merges) < MERGES:
        pairs = Counter(pair for word in words for pair in zip(word, word[1:]))
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def _tokens_and_types(family: str) -> tuple:
    plain = _byte_letters() + ["".join(pair) for pair in _learn_merges()]
    specials = list(_SPECIALS[family])
    first_padding = len(plain) + len(specials)
    padding = [f"[PAD{first_padding + i}]" for i in range(_PADDING[family])]
    types = [_NORMAL] * len(plain) + [_CONTROL] * len(specials) + [_UNUSED] * len(padding)
    return plain + specials + padding, types


def size(family: str) -> int:
    return len(_tokens_and_types(family)[0])


def tokens(family: str) -> list:
    """TEXT in this vocabulary, by the PyPI package tokenizers."""
    names, _ = _tokens_and_types(family)
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, _learn_merges()))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer.encode(TEXT).ids


def add_to(writer, family: str) -> None:
    """Adds the tokenizer's keys to a GGUFWriter."""
    names, types = _tokens_and_types(family)
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "gpt-2")
    writer.add_array("tokenizer.ggml.tokens", names)
    writer.add_array("tokenizer.ggml.token_type", types)
    writer.add_array("tokenizer.ggml.merges", [" ".join(pair) for pair in _learn_merges()])
    begin, end = ("<|endoftext|>", "<|im_end|>") if family == "llama" else ("<|startoftext|>", "<|return|>")
    writer.add_uint32("tokenizer.ggml.bos_token_id", names.index(begin))
    writer.add_uint32("tokenizer.ggml.eos_token_id", names.index(end))
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    if family == "llama":
        writer.add_string("tokenizer.chat_template", _CHATML)
