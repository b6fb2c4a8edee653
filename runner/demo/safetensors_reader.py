"""Tensors of a folder of safetensors files as memory maps: nothing is read before it is asked for.

A file is the length of its header (u64), the header (JSON: name -> dtype, shape, data_offsets) and the data.
"""

import json
import pathlib
import struct

import numpy as np

TYPES = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32, "U8": np.uint8}


class Fault(Exception):
    """What is wrong with the input, for the user."""


class Tensor:
    """One tensor's place in its file; BF16 comes as its bits."""

    def __init__(self, path, name, kind, shape, start):
        self.path, self.name, self.kind, self.shape, self.start = path, name, kind, tuple(shape), start

    def map(self) -> np.ndarray:
        return np.memmap(self.path, TYPES[self.kind], mode="r", offset=self.start, shape=self.shape)

    def floats(self, *index) -> np.ndarray:
        """float32 values of the whole tensor, or of a part such as floats(slice(0, 10))."""
        data = self.map()[index]
        if self.kind == "BF16":
            return (data.astype(np.uint32) << 16).view(np.float32)
        if self.kind == "U8":
            raise Fault(f"{self.path}: tensor {self.name} is U8, expected numbers")
        return data.astype(np.float32)


def _read_header(path: pathlib.Path) -> dict:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise Fault(f"{path}: not a safetensors file (header of {length} bytes in a file of {size})")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise Fault(f"{path}: its header is not JSON: {error}") from None
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = (
                entry["dtype"],
                [int(n) for n in entry["shape"]],
                entry["data_offsets"],
            )
        except (KeyError, TypeError, ValueError):
            raise Fault(f"{path}: tensor {name}: its entry in the header is damaged: {entry!r}") from None
        if kind not in TYPES:
            raise Fault(f"{path}: tensor {name} is of type {kind}, expected one of {', '.join(TYPES)}")
        bytes_of = int(np.prod(shape, dtype=np.int64)) * np.dtype(TYPES[kind]).itemsize
        if not 0 <= begin <= end <= size - 8 - length or end - begin != bytes_of:
            raise Fault(
                f"{path}: tensor {name} has {bytes_of} bytes by its shape, {end - begin} by its offsets, "
                f"and ends at {end} of {size - 8 - length}: the file is damaged or cut"
            )
        tensors[name] = Tensor(path, name, kind, shape, 8 + length + begin)
    return tensors


def open_folder(folder: pathlib.Path) -> dict:
    """Name -> Tensor over the files that the index names, or else all model*.safetensors of the folder."""
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise Fault(f"{folder}: no model*.safetensors here; give the folder of a Hugging Face checkpoint")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        named = {folder / name for name in json.loads(index.read_text())["weight_map"].values()}
        missing = sorted(path.name for path in named if not path.exists())
        if missing:
            raise Fault(f"{folder}: {', '.join(missing)} missing, named by {index.name}: download the rest")
        paths = sorted(named)
    tensors = {}
    for path in paths:
        for name, tensor in _read_header(path).items():
            if name in tensors:
                raise Fault(f"{path}: tensor {name} is in {tensors[name].path.name} too")
            tensors[name] = tensor
    return tensors
