#!/usr/bin/env python3
"""Writes the fixtures of tests/format: blocks and the floats that the PyPI package gguf makes of them.

    python3 tests/reference/formats.py [--out tests/data/format] [--seed 1]

The result depends on the seed and the package only; the files in the repository come from gguf 0.19.0 and
numpy 2.4.6. All numbers are little-endian.

decode_TYPE.bin   u32 number of blocks, the blocks, then the decoded elements as float32.
    Quants are random bytes. FP16 scales are random finite bit patterns, and the first blocks have every
    combination of zero, negative zero, subnormals, one and the largest numbers of both signs. MXFP4's E8M0
    bytes cover 0 to 254. The package decodes MXFP4's code 8 to +0; the OCP specification says -0, and that
    is what is written.
encode_TYPE.bin   u32 number of blocks, float32 elements, then the encoded blocks.
    Magnitudes from 2^-40 to 2^20 (Q8_0) or 2^12 (FP16 scales from underflow to large), ties between neighbouring
    codes, blocks of zeros and of one value, and amounts just below a power of two.
"""
import argparse
import pathlib
import struct

import gguf
import numpy as np

Type = gguf.GGMLQuantizationType
# Type: offsets of the FP16 scales in a block.
SCALES = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.IQ4_NL: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.MXFP4: [],
}
SPECIAL_HALVES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00, 0x7bff, 0xfbff], np.uint16)


def random_halves(rng, count):
    halves = rng.integers(0, 0x10000, count).astype(np.uint16)
    infinite = (halves & 0x7c00) == 0x7c00
    halves[infinite] &= 0xbfff
    return halves


def make_blocks(rng, kind, count):
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (count, block_bytes)).astype(np.uint8)
    for place, offset in enumerate(SCALES[kind]):
        halves = random_halves(rng, count)
        specials = np.roll(SPECIAL_HALVES, 3 * place)
        halves[:len(specials)] = specials
        blocks[:, offset:offset + 2] = halves.view(np.uint8).reshape(count, 2)
    if kind == Type.MXFP4:
        blocks[:, 0] = np.arange(count) % 255
    return blocks


def decode(kind, blocks):
    with np.errstate(over="ignore"):
        floats = gguf.quants.dequantize(blocks, kind).astype(np.float32).reshape(len(blocks), -1)
    if kind == Type.MXFP4:
        codes = np.concatenate([blocks[:, 1:] & 15, blocks[:, 1:] >> 4], axis=1)
        floats[codes == 8] = np.float32(-0.0)
    return floats


# Type: the largest power of two by which the encoder's test inputs are scaled, and its number of codes.
ENCODED = {
    Type.Q8_0: (20, 255), Type.MXFP4: (20, 16),
    Type.Q4_0: (12, 16), Type.Q4_1: (12, 16), Type.Q5_0: (12, 32), Type.Q5_1: (12, 32),
}


def encode_inputs(rng, kind, count):
    most, codes = ENCODED[kind]
    rows = rng.standard_normal((count, 32)).astype(np.float32)
    rows *= np.exp2(rng.integers(-40, most + 1, (count, 1))).astype(np.float32)
    rows[0] = 0
    rows[1] = -0.0
    if kind == Type.Q8_0:
        # d = 1 exactly, so halves are ties.
        rows[2] = np.arange(32) - 15.5
        rows[2, 0] = 127
        rows[3] = -rows[2]
    if codes in (16, 32) and kind != Type.MXFP4:
        # d = 1 or -1 exactly, so halves are ties.
        rows[2] = np.arange(32) * (codes / 32) - codes // 2
        rows[2, 1:31] += 0.5
        rows[2, 31] = codes - 1 - codes // 2
        rows[3] = -rows[2]
        rows[4] = 0.1
        rows[5] = -0.1
        rows[6] = np.abs(rows[6])
        rows[7] = -np.abs(rows[7])
    if kind == Type.MXFP4:
        ties = np.array([.25, .75, 1.25, 1.75, 2.5, 3.5, 5, 6], np.float32)
        near = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(9))])
        near = np.concatenate([near, ties[:7], [np.float32(7.5)]])
        rows[2] = near
        rows[3] = -near
        rows[4] = near * np.float32(2.0 ** -20)
        rows[5] = -near * np.float32(2.0 ** 60)
        # The package takes floor(log2) of a rounded logarithm, so just below a power of two it rounds up.
        for i, power in enumerate([-100, -20, -3, -1, 0, 1, 3, 20, 100, 127]):
            rows[6 + i] *= np.float32(0.5) / np.abs(rows[6 + i]).max() * np.float32(2.0 ** power)
            rows[6 + i, i] = np.nextafter(np.float32(2.0 ** power), np.float32(0))
        rows[16] *= np.float32(2.0 ** 126) / np.abs(rows[16]).max()
        rows[17] *= np.float32(2.0 ** -125) / np.abs(rows[17]).max()
    return rows


def write(path, *arrays):
    path.write_bytes(struct.pack("<I", len(arrays[0])) + b"".join(array.tobytes() for array in arrays))
    print(f"{path}: {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "data" / "format")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(arguments.seed)
    for kind in SCALES:
        count = 255 if kind == Type.MXFP4 else 32 if kind.name.endswith("_K") else 160
        blocks = make_blocks(rng, kind, count)
        write(arguments.out / f"decode_{kind.name.lower()}.bin", blocks, decode(kind, blocks))
    for kind in ENCODED:
        rows = encode_inputs(rng, kind, 96)
        with np.errstate(over="ignore"):
            write(arguments.out / f"encode_{kind.name.lower()}.bin", rows, gguf.quants.quantize(rows, kind))


if __name__ == "__main__":
    main()
