"""Tensors of a GGUF file, made piece by piece while they are written."""

import os
import pathlib
import sys
import time

import gguf
import numpy as np

from safetensors_reader import Fault

Type = gguf.GGMLQuantizationType


class Planned:
    """A tensor of the output: what the header says of it, and its bytes, made piece by piece when written."""

    def __init__(self, name, kind: Type, shape, pieces):
        self.name, self.kind, self.shape, self.pieces = name, kind, tuple(shape), pieces
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if shape[-1] % block:
            raise Fault(
                f"tensor {name}: rows of {shape[-1]} elements are no whole blocks of {kind.name} ({block})"
            )
        self.nbytes = int(np.prod(shape, dtype=np.int64)) // block * size

    def tofile(self, file):
        written = 0
        for piece in self.pieces():
            piece = np.ascontiguousarray(piece)
            piece.tofile(file)
            written += piece.nbytes
        assert written == self.nbytes, f"{self.name}: {written} bytes written, {self.nbytes} planned"


def encode(values: np.ndarray, kind: Type, name: str) -> np.ndarray:
    if not np.isfinite(values).all():
        raise Fault(f"tensor {name}: holds infinities or NaN")
    return gguf.quants.quantize(np.ascontiguousarray(values, np.float32), kind)


def write_tensors(writer: gguf.GGUFWriter, planned: list, path: pathlib.Path, progress):
    """Everything after the keys: to a temporary name, then renamed."""
    for tensor in planned:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.kind)
    temporary = path.with_name(path.name + ".part")
    try:
        writer.write_header_to_file(temporary)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, total = 0, sum(tensor.nbytes for tensor in planned)
        for tensor in planned:
            writer.write_tensor_data(tensor)
            done += tensor.nbytes
            progress(tensor.name, done, total)
        writer.close()
        os.replace(temporary, path)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def no_progress(_name, _done, _total):
    pass


def terminal_progress():
    """A line that is written over on a terminal; elsewhere only its last state."""
    begin = time.time()

    def show(name, done, total):
        if done < total and not sys.stderr.isatty():
            return
        end = "\n" if done == total else "\r"
        print(
            f"{done / 1e9:8.3f} of {total / 1e9:.3f} GB  {time.time() - begin:5.0f} s  {name:40}",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    return show
