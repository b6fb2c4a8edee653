"""Random tensors in every GGUF type: bytes for the file, and the exact values that those bytes mean.

A tensor's numpy shape is the GGUF shape reversed: rows last-but-one, a row of length ne0 last.
"""

from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Byte offset of the block's float16 factor d, and of the float16 offset m (or dmin) with the
# ratio |m| / d that centres the values on zero for uniformly random codes.
_SCALES = {
    "Q8_0": (0, None, 0.0),
    "Q4_0": (0, None, 0.0),
    "Q4_1": (0, 2, -7.5),
    "Q5_0": (0, None, 0.0),
    "Q5_1": (0, 2, -15.5),
    "IQ4_NL": (0, None, 0.0),
    "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0.0),
}

TYPES = ("F32", "F16", "BF16", *_SCALES, "MXFP4")


@dataclass
class Tensor:
    """One tensor of the file: its type, its bytes [.., rows, bytes of a row] and its values."""

    type: str
    data: np.ndarray
    values: np.ndarray

    @staticmethod
    def of_bytes(type_name: str, data: np.ndarray) -> "Tensor":
        """The tensor that these bytes mean; float64 holds every type's values exactly."""
        values = dequantize(data, GGMLQuantizationType[type_name]).astype(np.float64)
        return Tensor(type_name, data, values)

    @staticmethod
    def f32(values: np.ndarray) -> "Tensor":
        data = np.ascontiguousarray(values, dtype=np.float32)
        return Tensor("F32", data, data.astype(np.float64))


def _float_bytes(values: np.ndarray, type_name: str) -> np.ndarray:
    if type_name == "F32":
        return values.astype(np.float32)
    if type_name == "F16":
        return values.astype(np.float16)
    # BF16 by truncation: any BF16 value serves, and dequantising tells which one it is.
    halves = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return halves.view(np.uint8)


def _fill_scales(blocks: np.ndarray, type_name: str, unit: float, shape_of_d: np.ndarray) -> None:
    d_at, m_at, ratio = _SCALES[type_name]
    d = (unit * shape_of_d).astype(np.float16)
    blocks[:, d_at : d_at + 2] = d.reshape(-1, 1).view(np.uint8)
    if m_at is not None:
        m = (ratio * unit * shape_of_d).astype(np.float16)
        blocks[:, m_at : m_at + 2] = m.reshape(-1, 1).view(np.uint8)


def random_tensor(rng: np.random.Generator, type_name: str, shape: tuple[int, ...], std: float) -> Tensor:
    """Random values of about this standard deviation.

    Quantised blocks are random bytes throughout (so every code, every packed scale and every
    bit occurs, encoders' habits notwithstanding); only their float16 or E8M0 factors are chosen.
    """
    if type_name in ("F32", "F16", "BF16"):
        return Tensor.of_bytes(type_name, _float_bytes(std * rng.standard_normal(shape), type_name))
    elements, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    if shape[-1] % elements:
        raise ValueError(f"a row of {shape[-1]} does not hold whole blocks of {type_name}")
    row_bytes = shape[-1] // elements * size
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // elements, size), dtype=np.uint8)
    whole = (*shape[:-1], row_bytes)
    if type_name == "MXFP4":
        # The codes' standard deviation is 2.9 at scale 1; four neighbouring exponents occur.
        exponent = 127 + int(np.round(np.log2(std / 2.9)))
        blocks[:, 0] = exponent + rng.integers(-2, 2, len(blocks))
        return Tensor.of_bytes(type_name, blocks.reshape(whole))
    shape_of_d = rng.uniform(0.5, 1.5, len(blocks))
    if _SCALES[type_name][1] is None:  # symmetric types take factors of both signs
        shape_of_d *= rng.choice([-1.0, 1.0], len(blocks))
    _fill_scales(blocks, type_name, 2.0**-6, shape_of_d)
    unit = 2.0**-6 * std / Tensor.of_bytes(type_name, blocks).values.std()
    _fill_scales(blocks, type_name, unit, shape_of_d)
    return Tensor.of_bytes(type_name, blocks.reshape(whole))
