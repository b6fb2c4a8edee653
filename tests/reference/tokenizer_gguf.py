"""Vocabulary-only GGUF files for the tokenizer tests, with nothing but the standard library.

from tokenizer_gguf import write_gguf, written
"""

import pathlib
import struct

U32, I32, BOOL, STRING, ARRAY = 4, 5, 7, 8, 9
NORMAL, CONTROL, UNUSED = 1, 3, 5


def _alphabet() -> list[str]:
    """The character that byte-level vocabularies write for each byte."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in itself else chr(next(others)) for byte in range(256)]


ALPHABET = _alphabet()


def written(token: bytes) -> str:
    """A token as vocabularies write it."""
    return "".join(ALPHABET[byte] for byte in token)


def merges_of(ranks: dict[bytes, int]) -> list[str]:
    """The merges of a rank file: for each token, in rank order, every way to make it of two tokens, ordered by the
    ranks of the left and of the right part."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        pairs.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [f"{written(left)} {written(right)}" for left, right in pairs]
    return merges


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_string, value))
    return struct.pack(f"<IIQ{len(value)}i", ARRAY, I32, len(value), *value)


def write_gguf(path: pathlib.Path, metadata: dict) -> None:
    """Writes a GGUF 3 file without tensors: str, bool, int (u32), lists of str and of int (i32)."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(metadata))
    data += b"".join(_string(key) + _value(value) for key, value in metadata.items())
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
