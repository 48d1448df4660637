"""FP32 checkpoints stored small: weights on fine grids, entropy-coded as an artifact's are; about 10 bits a parameter.

    "LICW" container: header {"tensors": {name: entry}} | blobs | SHA-256

    {"shape": …, "bits": 11, "blob": …, "scales": …}   a kernel: integers, times a scale (float32) for each of its first
                                                       dimension
    {"shape": …, "data": …}                            any other tensor: float32, exactly

A kernel is what has two or more dimensions and at least ``KERNEL`` elements: with 11 bits the RD loss of six models
(three hyperpriors, two mean-scale ones, Cheng 2020) changed by -0.033 to +0.024 % (``benchmarks.small_checkpoints``).
GDN's matrices get 16 bits.
Integers, the coding tables, are left out: a model computes them from its parameters and its table of scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from licquant.codec.files import container
from licquant.codec.files.blobs import BlobReader, BlobWriter, get, is_name
from licquant.codec.files.weights import unpack_integers
from licquant.config import MAX_BITS, MIN_BITS
from licquant.errors import ArtifactError, ModelError

MAGIC, VERSION = b"LICW", 1
SUFFIX = ".licw"
KERNEL = 1024
_KERNEL_BITS, _MATRIX_BITS = 11, 16
_MOST_ELEMENTS = 1 << 28  # of one tensor


def to_small(state: Mapping[str, Tensor]) -> bytes:
    """A state dict as the content of a small checkpoint; what is not floating point is left out.

    Raises ``ModelError`` for values that are not finite.
    """
    writer, tensors = BlobWriter(), {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        values = tensor.detach().cpu().float().numpy()
        if not np.isfinite(values).all():
            raise ModelError(f"{name} has values that are not finite")
        tensors[name] = _entry(values, writer)
    return container.pack(MAGIC, VERSION, {"tensors": tensors}, writer.blobs)


def from_small(data: bytes) -> dict[str, Tensor]:
    """The state dict, float32; ``ModelError`` for anything but an undamaged small checkpoint."""
    try:
        _, header, blobs = container.unpack(MAGIC, (VERSION,), data, "a small checkpoint")
        reader = BlobReader(blobs, len(data))
        found = {}
        for name, record in get(header, "tensors", dict).items():
            if not is_name(name):
                raise ArtifactError("a tensor without a name")
            found[name] = torch.from_numpy(_values(record, reader))
        return found
    except ArtifactError as error:
        raise ModelError(str(error)) from error


def is_small(path: Path) -> bool:
    """Whether a file begins as a small checkpoint; ``OSError`` if it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _entry(values: np.ndarray, writer: BlobWriter) -> dict[str, Any]:
    shape = list(values.shape)
    if values.ndim < 2 or values.size < KERNEL:
        return {"shape": shape, "data": writer.data(values.astype("<f4").tobytes())}
    bits = _KERNEL_BITS if values.ndim > 2 else _MATRIX_BITS
    rows = values.reshape(len(values), -1)
    scales = (np.abs(rows).max(1) / (2 ** (bits - 1) - 1)).astype("<f4")
    steps = np.where(scales > 0, scales, 1).astype(np.float64)
    limit = 2 ** (bits - 1) - 1
    integers = np.floor(rows / steps[:, None] + 0.5).clip(-limit, limit).astype(np.int32)
    return {
        **writer.weights(integers.reshape(shape), bits),
        "scales": writer.data(scales.tobytes()),
    }


def _values(record: Any, reader: BlobReader) -> np.ndarray:
    shape = get(record, "shape", list)
    if not all(type(n) is int and n >= 1 for n in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ArtifactError("a tensor has an impossible shape")
    reader.claim(math.prod(shape))  # of plain numbers too: a file may name one blob any number of times
    if "data" in record:
        return _floats(reader.data(record["data"]), math.prod(shape)).reshape(shape)
    bits = get(record, "bits", int)
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ArtifactError(f"stored weights have {MIN_BITS} to {MAX_BITS} bits")
    integers = unpack_integers(reader.data(record), tuple(shape), bits)
    scales = _floats(reader.data(record.get("scales")), shape[0])
    with np.errstate(over="ignore"):
        return _finite((integers.reshape(len(integers), -1) * scales[:, None]).astype(np.float32).reshape(shape))


def _floats(data: bytes, count: int) -> np.ndarray:
    if len(data) != 4 * count:
        raise ArtifactError(f"{count} numbers in {len(data)} bytes of float32")
    return _finite(np.frombuffer(data, "<f4").copy())


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ArtifactError("holds numbers that are not finite")
    return values
