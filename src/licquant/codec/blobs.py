"""Arrays as JSON references into a sequence of binary blobs: how an artifact stores its tensors.

{"value": 128, "shape": [192]}                        all elements equal
{"blob": 7, "dtype": "<i4", "shape": [192]}           raw little-endian numbers
{"blob": 8, "bits": 8, "shape": [128, 128, 5, 5]}     entropy-coded weights (``weights.py``)
{…, "nested": 6}                                      the 6-bit integers inside those (``nested_weight``)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from licquant.codec.weights import pack_integers, unpack_integers
from licquant.errors import ArtifactError
from licquant.program.arithmetic import MAX_BITS, MIN_BITS, nested_weight

MAX_ELEMENTS = 1 << 27
_DTYPES = ("<i1", "<u1", "<i2", "<u2", "<i4", "<i8", "<f4")


class BlobWriter:
    """Collects blobs; each method returns the JSON that refers to what it stored."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []

    def data(self, data: bytes) -> dict[str, Any]:
        self.blobs.append(data)
        return {"blob": len(self.blobs) - 1}

    def vector(self, values: np.ndarray) -> dict[str, Any]:
        """Integers exactly; floating-point values as float32."""
        shape = list(values.shape)
        kinds = ("<f4",) if values.dtype.kind == "f" else _DTYPES[:-1]
        dtype = next(d for d in kinds if d == "<f4" or np.array_equal(values.astype(d), values))
        stored = values.astype(dtype)
        if stored.size and (stored == stored.flat[0]).all():
            return {"value": stored.flat[0].item(), "shape": shape}
        return {**self.data(stored.tobytes()), "dtype": dtype, "shape": shape}

    def weights(self, values: np.ndarray, bits: int) -> dict[str, Any]:
        return {**self.data(pack_integers(values, bits)), "bits": bits, "shape": list(values.shape)}

    def nested(self, stored: dict[str, Any], bits: int) -> dict[str, Any]:
        """Weights of fewer bits inside ones that are stored already: nothing is stored."""
        return {**stored, "nested": bits}


class BlobReader:
    """The inverse; every method raises ``ArtifactError`` for references that do not hold."""

    def __init__(self, blobs: Sequence[bytes]) -> None:
        self.blobs = blobs
        self._weights: dict[tuple[int, tuple[int, ...], int], np.ndarray] = {}  # nested weights are read many times

    def data(self, reference: Any) -> bytes:
        index = get(reference, "blob", int)
        if not 0 <= index < len(self.blobs):
            raise ArtifactError(f"refers to blob {index} of {len(self.blobs)}")
        return self.blobs[index]

    def integers(self, reference: Any) -> np.ndarray:
        """int64, any shape."""
        values = self._values(reference)
        if values.dtype.kind == "f":
            raise ArtifactError("holds floating-point values where integers are needed")
        return values.astype(np.int64)

    def reals(self, reference: Any) -> np.ndarray:
        """float64, any shape."""
        return self._values(reference).astype(np.float64)

    def weights(self, reference: Any) -> np.ndarray:
        """int32, within the bits that the reference names."""
        shape, bits = _shape(reference), get(reference, "bits", int)
        if not MIN_BITS <= bits <= MAX_BITS:
            raise ArtifactError(f"weights of {bits} bits")
        key = (get(reference, "blob", int), shape, bits)
        if key not in self._weights:
            self._weights[key] = unpack_integers(self.data(reference), shape, bits)
        if "nested" not in reference:
            return self._weights[key]
        narrower = get(reference, "nested", int)
        if not MIN_BITS <= narrower <= bits:
            raise ArtifactError(f"weights of {narrower} bits inside ones of {bits}")
        return nested_weight(self._weights[key], bits, narrower)

    def _values(self, reference: Any) -> np.ndarray:
        shape = _shape(reference)
        if isinstance(reference, dict) and "value" in reference:
            value = reference["value"]
            if type(value) not in (int, float) or not math.isfinite(value) or abs(value) >= 1 << 62:
                raise ArtifactError("a tensor's value is not a number in range")
            return np.full(shape, value)
        dtype = get(reference, "dtype", str)
        if dtype not in _DTYPES:
            raise ArtifactError(f"unknown number format {dtype[:20]!r}")
        data = self.data(reference)
        if len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ArtifactError(f"a tensor of shape {shape} in {len(data)} bytes of {dtype}")
        return np.frombuffer(data, dtype=dtype).reshape(shape)


def get(record: Any, key: str, kind: type) -> Any:
    """record[key], which must be of that type; ``ArtifactError`` otherwise."""
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind:
        raise ArtifactError(f"the field {key!r} is missing or not of type {kind.__name__}")
    return value


def _shape(reference: Any) -> tuple[int, ...]:
    shape = get(reference, "shape", list)
    if len(shape) > 4 or not all(type(n) is int and 1 <= n <= MAX_ELEMENTS for n in shape):
        raise ArtifactError("a tensor has an impossible shape")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ArtifactError(f"a tensor of {math.prod(shape)} elements: at most {MAX_ELEMENTS} are read")
    return tuple(shape)
