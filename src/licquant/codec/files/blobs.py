"""Arrays as JSON references into a sequence of binary blobs: how an artifact stores its tensors.

{"value": 128, "shape": [192]}                        all elements equal
{"blob": 7, "dtype": "<i4", "shape": [192]}           raw little-endian numbers
{"blob": 8, "bits": 8, "shape": [128, 128, 5, 5]}     entropy-coded weights (``weights.py``)
{…, "nested": 6}                                      the 6-bit integers inside those (``nested_weight``)

A few bytes of JSON can stand for any number of equal elements, and entropy-coded weights can take hardly any bits, so
what a file says is no measure of what it needs. Its tensors may therefore have at most ``allowed_elements`` together,
counted as often as they are referred to, before any of them is made. Real models have 2 to 10 elements a byte.
Loading takes at most 48 bytes for each on the exact engine, measured 34, beside about 30 times the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from licquant.codec.files.weights import pack_integers, unpack_integers
from licquant.errors import ArtifactError
from licquant.program.arithmetic import MAX_BITS, MIN_BITS, nested_weight
from licquant.program.grid import MAX_CHANNELS

BASE_ELEMENTS, ELEMENTS_PER_BYTE = 1 << 21, 32
MAX_WEIGHTS = 1 << 24  # of one layer
_MAX_NAME = 200
_MAX_VALUE = 1 << 62
_DTYPES = ("<i1", "<u1", "<i2", "<u2", "<i4", "<i8", "<f4")

# Index of the blob, shape, bits → integers of that shape (``weight_type``).
Unpacked = dict[tuple[int, tuple[int, ...], int], np.ndarray]


def allowed_elements(size: int) -> int:
    """How many elements all tensors of a file of so many bytes may have together."""
    return BASE_ELEMENTS + ELEMENTS_PER_BYTE * size


class BlobWriter:
    """Collects blobs; each method returns the JSON that refers to what it stored."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.elements = 0  # of all tensors, counted as the reader counts them

    def data(self, data: bytes) -> dict[str, Any]:
        """Bytes as they are."""
        self.blobs.append(data)
        return {"blob": len(self.blobs) - 1}

    def vector(self, values: np.ndarray) -> dict[str, Any]:
        """Integers exactly; floating-point values as float32."""
        self.elements += values.size
        shape = list(values.shape)
        kinds = ("<f4",) if values.dtype.kind == "f" else _DTYPES[:-1]
        dtype = next(d for d in kinds if d == "<f4" or np.array_equal(values.astype(d), values))
        stored = values.astype(dtype)
        if stored.size and (stored == stored.flat[0]).all():
            return {"value": stored.flat[0].item(), "shape": shape}
        return {**self.data(stored.tobytes()), "dtype": dtype, "shape": shape}

    def weights(self, values: np.ndarray, bits: int) -> dict[str, Any]:
        """Integers of any shape within ``bits`` signed bits, entropy-coded."""
        self.elements += values.size
        return {**self.data(pack_integers(values, bits)), "bits": bits, "shape": list(values.shape)}

    def nested(self, stored: dict[str, Any], bits: int) -> dict[str, Any]:
        """Weights of fewer bits inside ones that are stored already: nothing is stored."""
        self.elements += math.prod(stored["shape"])
        return {**stored, "nested": bits}


class BlobReader:
    """The inverse; every method raises ``ArtifactError`` for references that do not hold.

    size:    of the file, in bytes
    weights: those that are unpacked already
    """

    def __init__(self, blobs: Sequence[bytes], size: int, weights: Unpacked | None = None) -> None:
        self.blobs = blobs
        self._left = allowed_elements(size)
        self.unpacked: Unpacked = {} if weights is None else weights  # nested weights are read many times

    def data(self, reference: Any) -> bytes:
        """The bytes of the blob that is referred to."""
        index = get(reference, "blob", int)
        if not 0 <= index < len(self.blobs):
            raise ArtifactError(f"refers to a blob beyond the {len(self.blobs)} there are")
        return self.blobs[index]

    def integers(self, reference: Any) -> np.ndarray:
        """int64 [n], 1 <= n <= 2^16."""
        values = self._vector(reference)
        if values.dtype.kind == "f":
            raise ArtifactError("holds floating-point values where integers are needed")
        return values.astype(np.int64)

    def reals(self, reference: Any) -> np.ndarray:
        """float64 [n], 1 <= n <= 2^16."""
        return self._vector(reference).astype(np.float64)

    def weights(self, reference: Any, rank: int) -> np.ndarray:
        """Integers (``weight_type``) of that many dimensions, within the bits that the reference names."""
        shape, bits = self._shape(reference, rank, MAX_WEIGHTS), get(reference, "bits", int)
        if not MIN_BITS <= bits <= MAX_BITS:
            raise ArtifactError(f"stored weights have {MIN_BITS} to {MAX_BITS} bits")
        key = (get(reference, "blob", int), shape, bits)
        if key not in self.unpacked:
            self.unpacked[key] = unpack_integers(self.data(reference), shape, bits)
        if "nested" not in reference:
            return self.unpacked[key]
        narrower = get(reference, "nested", int)
        if not MIN_BITS <= narrower <= bits:
            raise ArtifactError(f"weights of {str(narrower)[:20]} bits inside ones of {bits}")
        return nested_weight(self.unpacked[key], bits, narrower)

    def _vector(self, reference: Any) -> np.ndarray:
        shape = self._shape(reference, 1, MAX_CHANNELS)
        if "value" in reference:
            value = reference["value"]
            known = type(value) is int or (type(value) is float and math.isfinite(value))
            if not known or abs(value) >= _MAX_VALUE:
                raise ArtifactError("a tensor's value is not a number in range")
            return np.full(shape, value)
        dtype = get(reference, "dtype", str)
        if dtype not in _DTYPES:
            raise ArtifactError(f"unknown number format {dtype[:20]!r}")
        data = self.data(reference)
        if len(data) != shape[0] * np.dtype(dtype).itemsize:
            raise ArtifactError(f"a vector of {shape[0]} elements in {len(data)} bytes of {dtype}")
        return np.frombuffer(data, dtype=dtype)

    def _shape(self, reference: Any, rank: int, most: int) -> tuple[int, ...]:
        """The shape that a reference names, checked and counted before there is anything of it."""
        shape = get(reference, "shape", list)
        if len(shape) != rank:
            raise ArtifactError(f"a tensor has {len(shape)} dimensions instead of {rank}")
        if not all(type(n) is int and 1 <= n <= most for n in shape) or math.prod(shape) > most:
            raise ArtifactError(f"a tensor has an impossible shape, or more than {most} elements")
        self.claim(math.prod(shape))
        return tuple(shape)

    def claim(self, elements: int) -> None:
        """Count what will be made; ``ArtifactError`` for more than a file of this size may hold."""
        self._left -= elements
        if self._left < 0:
            raise ArtifactError("its tensors claim far more elements than a file of its size holds")


def get(record: Any, key: str, kind: type) -> Any:
    """record[key], which must be of that type; ``ArtifactError`` otherwise."""
    value = record.get(key) if isinstance(record, dict) else None
    if type(value) is not kind:
        raise ArtifactError(f"the field {key!r} is missing or not of type {kind.__name__}")
    return value


def name_of(record: Any, key: str = "name") -> str:
    """record[key], which must be a name: printable, of a length that fits into one line."""
    name: str = get(record, key, str)
    if not is_name(name):
        raise ArtifactError(f"the field {key!r} is not a name of 1 to {_MAX_NAME} printable characters")
    return name


def is_name(value: Any) -> bool:
    """Whether a value is a string that can name something in a message of one line."""
    return isinstance(value, str) and 1 <= len(value) <= _MAX_NAME and value.isprintable()
