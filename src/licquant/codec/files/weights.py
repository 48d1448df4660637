"""Lossless storage of integer weights: b-bit signed symmetric integers, coded with stored histograms.

A value v in [-q, q], q = 2^(b-1) - 1, becomes u = v + q; its high bits ``u >> low`` are coded by ANS with a
histogram, the ``low`` bits below are stored as they are. ``low`` is whatever makes the whole smallest: 0 for
large tensors of up to about 8 bits; more where a fine histogram would cost more than it saves; b (all bits
raw, no histogram) for tiny ones.

The values of a tensor differ in spread by output channel, input channel and kernel position. Where it pays
(2.9 % of a trained hyperprior model's 8-bit weights), each index along each axis stores a level, 4·log2 of
its mean magnitude; the sum of a value's levels, quantized, is its class, and every class has a histogram of
its own.

    byte 0: low | if low = b: the raw values, as one ANS stack; nothing else
    byte 1: 0 for one class, else 1 + shift, followed by the levels of every axis (Rice-coded, zigzag)
    histograms: byte t; per class the first occupied bin and the number of bins (Rice-coded);
        the bins' counts as levels with t mantissa bits (Rice-coded differences)
    one ANS stack: per class, ascending, the high bits of its values in order; then the low bits of all values

A tensor is seen as three axes: the first, the second, and all others as one (a kernel's positions).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from licquant.codec.entropy.ans import (
    TOTAL_BITS,
    coder_from_bytes,
    coder_to_bytes,
    frequency_model,
    is_exhausted,
    new_coder,
    pop_bits,
    push_bits,
)
from licquant.codec.entropy.rice import pack_rice, unpack_rice, unzigzag, zigzag
from licquant.codec.entropy.tables import apportion
from licquant.config import MAX_BITS, MIN_BITS
from licquant.errors import ArtifactError
from licquant.program.arithmetic import weight_type

__all__ = ["pack_integers", "unpack_integers"]

_CODED_BITS = 10  # a histogram has at most 2^10 bins
_MAX_CLASSES = 64
_MAX_LEVEL = 40  # of an axis: a spread 2^10 times larger or smaller than the mean
_SHIFTS = (0, 1, 2)  # class widths that are tried: a quarter, a half and one octave
_MANTISSAS = (0, 1, 2, 3)

# The model of one class: which bins occur (int64[m]), and constriction's model of them (None if m < 2).
_Model = tuple[np.ndarray, Any]


def pack_integers(values: np.ndarray, bits: int) -> bytes:
    """Pack integers of any shape in [-(2^(bits-1) - 1), 2^(bits-1) - 1], bits in 2..16. The shape is not
    stored.

    Raises ``ValueError`` (a caller's mistake) if a value or ``bits`` is out of range.
    """
    limit = _limit(bits)
    values = np.asarray(values)
    if values.size == 0:
        return b""
    if values.dtype.kind not in "iu" or int(values.min()) < -limit or int(values.max()) > limit:
        raise ValueError(f"values must be integers in [-{limit}, {limit}] for {bits} bits")
    unsigned = values.astype(np.int32).ravel() + np.int32(limit)
    low = _best_low(unsigned, bits)
    coder = new_coder()
    push_bits(coder, unsigned & ((1 << low) - 1), low)
    if low == bits:
        return bytes([low]) + coder_to_bytes(coder)
    high = unsigned >> low
    bins = _bins(bits, low)
    header, classes, histograms = _best_classes(values, high, bins)
    order, sizes = _sort_by_class(classes)
    models, _ = _read_models(histograms, sizes.size, bins)  # what the decoder will have
    _push_slots(coder, high[order], sizes, models)
    return bytes([low]) + header + histograms + coder_to_bytes(coder)


def unpack_integers(data: bytes, shape: int | tuple[int, ...], bits: int) -> np.ndarray:
    """Array of ``shape`` (``weight_type``): the inverse of :func:`pack_integers`, for the same shape and bits.

    Raises ``ArtifactError`` if ``data`` is not what that writes. Memory is bounded by the shape and the data.
    """
    limit = _limit(bits)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    count = math.prod(shape)
    if count == 0:
        if data:
            raise ArtifactError("packed integers: data for an empty tensor")
        return np.zeros(shape, dtype=weight_type(bits))
    if not data or data[0] > bits or _bins(bits, data[0]) > 1 << _CODED_BITS:
        raise ArtifactError("packed integers: missing or of an unknown form")
    low = data[0]
    at, high = 1, None
    if low < bits:
        bins = _bins(bits, low)
        classes, at = _read_classes(data, at, shape)
        order, sizes = _sort_by_class(classes)
        models, at = _read_models(data, sizes.size, bins, at)
    try:
        coder = coder_from_bytes(data[at:])
    except ValueError as error:
        raise ArtifactError(f"packed integers: {error}") from None
    if low < bits:
        high = np.empty(count, dtype=np.int32)
        high[order] = _pop_slots(coder, sizes, models)
    unsigned = pop_bits(coder, count, low)
    if high is not None:
        unsigned |= high.astype(np.int64) << low
    if not is_exhausted(coder):
        raise ArtifactError("packed integers: the data does not end where the last value does")
    if int(unsigned.max()) > 2 * limit:
        raise ArtifactError(f"packed integers: a value out of range for {bits} bits")
    return (unsigned - limit).astype(weight_type(bits)).reshape(shape)


def _limit(bits: int) -> int:
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"bits must be in {MIN_BITS}..{MAX_BITS}, not {bits}")
    return int((1 << (bits - 1)) - 1)


def _bins(bits: int, low: int) -> int:
    """How many different high parts there can be."""
    return (2 * _limit(bits) >> low) + 1


def _best_low(unsigned: np.ndarray, bits: int) -> int:
    """The number of raw low bits that makes the whole smallest, estimated with one class."""
    counts = np.bincount(unsigned, minlength=1 << bits)
    best, best_size = bits, unsigned.size * bits / 8
    for low in range(bits):
        bins = _bins(bits, low)
        if bins > 1 << _CODED_BITS:
            continue
        folded = counts.reshape(-1, 1 << low).sum(axis=1)[None, :bins]
        size = _fit(folded)[1] + unsigned.size * low / 8
        if size < best_size:
            best, best_size = low, size
    return best


# --- classes of equal spread


def _axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    padded = (*shape, 1, 1)
    return padded[0], padded[1], math.prod(shape[2:])


def _best_classes(values: np.ndarray, high: np.ndarray, bins: int) -> tuple[bytes, np.ndarray, bytes]:
    """``(header, classes, histograms)`` of the class width with the smallest whole, one class included."""
    classes = np.zeros(high.size, dtype=np.uint8)
    histograms, best = _fit(np.bincount(high, minlength=bins)[None])
    header = b"\0"
    if values.ndim < 2:
        return header, classes, histograms
    magnitude = np.abs(values.astype(np.float32)).reshape(_axes(values.shape))
    mean = float(magnitude.mean()) + 1e-3
    levels = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        spread = magnitude.mean(axis=others) / mean
        level = np.floor(4 * np.log2(np.maximum(spread, 2.0**-12)) + 0.5)
        levels.append(np.clip(level, -_MAX_LEVEL, _MAX_LEVEL).astype(np.int64))
    stored = b"".join(pack_rice(zigzag(level)) for level in levels)
    for shift in _SHIFTS:
        if not 1 < _class_count(levels, shift) <= _MAX_CLASSES:
            continue
        candidate = _classes(levels, shift)
        count = int(candidate.max()) + 1  # the last classes may be empty
        joint = np.bincount(candidate.astype(np.int64) * bins + high, minlength=count * bins).reshape(count, bins)
        packed, size = _fit(joint)
        if size + len(stored) < best:
            best = size + len(stored)
            header, classes, histograms = bytes([1 + shift]) + stored, candidate, packed
    return header, classes, histograms


def _class_count(levels: list[np.ndarray], shift: int) -> int:
    return int((sum(int(level.max() - level.min()) for level in levels) >> shift) + 1)


def _classes(levels: list[np.ndarray], shift: int) -> np.ndarray:
    """uint8[count]: each value's class from the levels of its three axes."""
    a, b, c = (level - level.min() for level in levels)
    total = a[:, None, None] + b[:, None] + c
    return (total >> shift).astype(np.uint8).ravel()


def _read_classes(data: bytes, at: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """``(classes, at)``: the stored classes of a tensor of ``shape``, and where the data goes on."""
    if at >= len(data):
        raise ArtifactError("packed integers: truncated")
    if data[at] == 0:
        return np.zeros(math.prod(shape), dtype=np.uint8), at + 1
    shift = data[at] - 1
    if shift not in _SHIFTS:
        raise ArtifactError("packed integers: an unknown kind of classes")
    at += 1
    levels = []
    for size in _axes(shape):
        stored, used = unpack_rice(data[at:], size)
        levels.append(unzigzag(stored))
        at += used
    if _class_count(levels, shift) > _MAX_CLASSES:
        raise ArtifactError("packed integers: too many classes")
    return _classes(levels, shift), at


def _sort_by_class(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(order, sizes)``: the stable order by class, and how many values each class has (0 is possible)."""
    return np.argsort(classes, kind="stable"), np.bincount(classes)


# --- histograms


def _to_levels(counts: np.ndarray, t: int) -> np.ndarray:
    """Counts as floating-point levels with t mantissa bits, rounded; below 2^(t+1) exact. 0 stays 0."""
    exponent = np.maximum(np.frexp(counts.astype(np.float64))[1] - 1 - t, 0).astype(np.int64)
    return (exponent << t) + ((counts + ((1 << exponent) >> 1)) >> exponent)


def _from_levels(levels: np.ndarray, t: int) -> np.ndarray:
    """The (rounded) counts that levels stand for, int64, below 2^33 if the levels are below 32·2^t."""
    exponent = np.maximum((levels >> t) - 1, 0)
    mantissa = np.where(levels >> t > 0, (levels & ((1 << t) - 1)) | (1 << t), levels)
    return mantissa << exponent


def _fit(counts: np.ndarray) -> tuple[bytes, float]:
    """``(stored, size)``: histograms counts[classes, bins] as stored; bytes of them and what they code."""
    best: tuple[bytes, float] = (b"", math.inf)
    spans = []
    for row in counts:
        occupied = np.flatnonzero(row)
        spans.append((int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0))
    firsts = np.array([first for first, _ in spans])
    lengths = np.array([end - first for first, end in spans])
    cut = np.concatenate([row[first:end] for row, (first, end) in zip(counts, spans, strict=True)])
    lists = pack_rice(firsts) + pack_rice(lengths)
    for t in _MANTISSAS:
        levels = _to_levels(cut, t)
        stored = bytes([t]) + lists + pack_rice(zigzag(np.diff(levels, prepend=0)))
        bits, at = 0.0, 0
        for length in lengths.tolist():
            row, weights = cut[at : at + length], _from_levels(levels[at : at + length], t)
            at += length
            occupied = row > 0
            if int(occupied.sum()) > 1:
                cost = TOTAL_BITS - np.log2(apportion(weights[occupied]))
                bits += float((row[occupied] * cost).sum())
        if len(stored) + bits / 8 < best[1]:
            best = (stored, len(stored) + bits / 8)
    return best


def _read_models(data: bytes, classes: int, bins: int, at: int = 0) -> tuple[list[_Model], int]:
    """``(models, at)``: the model of each class, and where the data goes on. Raises ``ArtifactError``."""
    if at >= len(data) or data[at] not in _MANTISSAS:
        raise ArtifactError("packed integers: missing or unknown histogram")
    t = data[at]
    at += 1
    firsts, used = unpack_rice(data[at:], classes)
    at += used
    lengths, used = unpack_rice(data[at:], classes)
    at += used
    if int((firsts + lengths).max()) > bins:
        raise ArtifactError("packed integers: a histogram beyond the range of its values")
    deltas, used = unpack_rice(data[at:], int(lengths.sum()))
    levels = np.cumsum(unzigzag(deltas))
    if levels.size and (int(levels.min()) < 0 or int(levels.max()) >= 32 << t):
        raise ArtifactError("packed integers: a count out of range")
    weights = _from_levels(levels, t)
    models: list[_Model] = []
    start = 0
    for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
        row = weights[start : start + length]
        start += length
        occupied = np.flatnonzero(row)
        model = frequency_model(apportion(row[occupied])) if occupied.size > 1 else None
        models.append((occupied + first, model))
    return models, at + used


def _push_slots(coder: Any, high: np.ndarray, sizes: np.ndarray, models: list[_Model]) -> None:
    """Push high parts sorted by class, the last class first."""
    end = high.size
    for size, (occupied, model) in zip(reversed(sizes.tolist()), reversed(models), strict=True):
        if model is not None:
            slots = np.searchsorted(occupied, high[end - size : end])
            coder.encode_reverse(slots.astype(np.int32), model)
        end -= size


def _pop_slots(coder: Any, sizes: np.ndarray, models: list[_Model]) -> np.ndarray:
    """int32[count]: the inverse of :func:`_push_slots`; ``ArtifactError`` if a class lacks its histogram."""
    parts = []
    for size, (occupied, model) in zip(sizes.tolist(), models, strict=True):
        if (occupied.size == 0) != (size == 0):
            raise ArtifactError("packed integers: a histogram does not fit its class")
        if model is not None:
            parts.append(occupied[coder.decode(model, size)])
        elif size:
            parts.append(np.full(size, occupied[0]))
    return np.concatenate(parts).astype(np.int32)
