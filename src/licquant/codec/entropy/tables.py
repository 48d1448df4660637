"""Coding tables: integer frequencies that sum to 2^16, made once from floats and from then on only integers.

Table k covers the symbols ``offsets[k] .. offsets[k]+lengths[k]-1``, one slot each, and has one slot more,
the last: the escape, which stands for every other int32 value. All tables lie behind one another in one flat
array:

    frequencies: | table 0: lengths[0] symbols, escape | table 1: lengths[1] symbols, escape | ...

An escaped value is coded after its slot (see ``coder.py``) as the side it lies on and its distance d >= 1
from the range in Elias-gamma fashion: class c = floor(log2 d) with the fixed frequencies ``ESCAPE_CLASSES``,
then c + 1 raw bits.

Stored form (everything Rice-coded, ``rice.py``): number of tables (uint32), lengths, offsets (zigzag), bytes
per table, then per table the differences between neighbouring in-range frequencies (zigzag); the escape's is
what is left to 2^16.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from licquant.codec.entropy.ans import TOTAL, TOTAL_BITS, frequency_model
from licquant.codec.entropy.rice import pack_rice, unpack_rice, unzigzag, zigzag
from licquant.errors import ArtifactError

__all__ = ["ESCAPE_CLASSES", "MAX_SLOTS", "MAX_TABLES", "CodingTables", "apportion", "gaussian_pmfs"]

MAX_TABLES = 1 << 16  # a table index is at most a uint16
MAX_SLOTS = 1 << 20  # all tables together; 64 Gaussian tables up to scale 256 have 2^13.9
_INT32 = np.iinfo(np.int32)


def _escape_classes() -> np.ndarray:
    """Frequencies of the classes 0..32: each takes a quarter of what is left; far values stay affordable."""
    frequencies: list[int] = []
    for _ in range(32):
        frequencies.append((TOTAL - sum(frequencies)) // 4)
    return np.array([*frequencies, TOTAL - sum(frequencies)], dtype=np.uint32)


ESCAPE_CLASSES: np.ndarray = _escape_classes()


def apportion(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies[n], each >= 1 and summing to 2^16, in proportion to weights[n] as nearly as that
    allows.

    weights: integers in [0, 2^46), summing to 1 .. 2^62, 1 <= n <= 2^16. What would fall below 1 is set to 1,
    the others share the rest; the largest remainders get the units that rounding down leaves over, ties going
    to the lower index. Integers only: the same on every machine.
    """
    w = weights.astype(np.int64)
    frequencies = np.ones(w.size, dtype=np.int64)
    shared = np.arange(w.size)
    while True:
        total, rest = int(w[shared].sum()), TOTAL - (w.size - shared.size)
        share = w[shared] * rest // total
        if share.min() >= 1:
            break
        shared = shared[share >= 1]  # setting others to 1 leaves less than before, which may lift some more
    frequencies[shared] = share
    remainders = w[shared] * rest - share * total
    frequencies[shared[np.argsort(-remainders, kind="stable")[: rest - int(share.sum())]]] += 1
    return frequencies


def gaussian_pmfs(
    scales: Sequence[float], tail_mass: float = 2.0**-15, min_radius: int = 1
) -> tuple[list[np.ndarray], np.ndarray]:
    """``(pmfs, offsets)`` of zero-mean Gaussians integrated over unit bins, for
    :meth:`CodingTables.from_probabilities`.

    Table k covers -r..r with the smallest r >= min_radius that leaves at most ``tail_mass`` outside, or past
    which a symbol would have less than half a unit of frequency: lifting many of those to a whole unit would
    cost the others more than escapes do. The scales (> 0, in symbols) are standard deviations.
    """
    pmfs, radii = [], []
    for scale in scales:
        unit = scale * math.sqrt(2.0)
        tails = [0.5 * math.erfc(0.5 / unit)]  # tails[i]: the mass above i + 1/2
        while True:
            radius = len(tails) - 1
            following = 0.5 * math.erfc((radius + 1.5) / unit)
            small = 2 * tails[-1] <= tail_mass or tails[-1] - following < 0.5 / TOTAL
            if radius >= min_radius and small:
                break
            tails.append(following)
        side = -np.diff(tails)  # differences of upper tails keep their precision far from 0
        pmfs.append(np.concatenate([side[::-1], [1.0 - 2.0 * tails[0]], side]))
        radii.append(radius)
    return pmfs, -np.array(radii, dtype=np.int32)


@dataclass(frozen=True, eq=False)
class CodingTables:
    """K integer coding tables; immutable and checked on construction (``ArtifactError``).

    frequencies: uint32[sum(lengths) + K], per table lengths[k] symbols and the escape, each >= 1, in all 2^16
    lengths:     int32[K], symbols in range, each >= 1
    offsets:     int32[K], the first symbol in range; the last one must be an int32 too
    """

    frequencies: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("frequencies", np.uint32), ("lengths", np.int32), ("offsets", np.int32)):
            object.__setattr__(self, name, _integers(getattr(self, name), name, np.dtype(dtype)))
        count = self.lengths.size
        if not 1 <= count <= MAX_TABLES or self.offsets.size != count:
            raise ArtifactError(f"coding tables: {count} lengths and {self.offsets.size} offsets")
        if int(self.lengths.min()) < 1:
            raise ArtifactError("coding tables: a table without symbols")
        slots = int(self.lengths.sum(dtype=np.int64)) + count
        if slots != self.frequencies.size or slots > MAX_SLOTS:
            raise ArtifactError(f"coding tables: {self.frequencies.size} frequencies for {slots} slots")
        if int(self.frequencies.min()) < 1:
            raise ArtifactError("coding tables: a frequency below 1")
        if (np.add.reduceat(self.frequencies, self._starts[:-1], dtype=np.uint64) != TOTAL).any():
            raise ArtifactError("coding tables: the frequencies of a table do not sum to 65536")
        if int((self.offsets.astype(np.int64) + self.lengths).max()) - 1 > _INT32.max:
            raise ArtifactError("coding tables: a symbol beyond the range of int32")

    def __len__(self) -> int:
        return int(self.lengths.size)

    @cached_property
    def _starts(self) -> np.ndarray:
        """int64[K+1]: where each table begins in ``frequencies``."""
        return np.concatenate([[0], np.cumsum(self.lengths.astype(np.int64) + 1)])

    @cached_property
    def _models(self) -> list[Any]:
        return [None] * len(self)

    def table(self, k: int) -> np.ndarray:
        """uint32[lengths[k] + 1]: the frequencies of table k, the escape's last."""
        return self.frequencies[self._starts[k] : self._starts[k + 1]]

    def model(self, k: int) -> Any:
        """constriction's model of table k, built at the first use and kept."""
        if self._models[k] is None:
            self._models[k] = frequency_model(self.table(k))
        return self._models[k]

    @classmethod
    def from_probabilities(cls, pmfs: Sequence[np.ndarray], offsets: Sequence[int] | np.ndarray) -> CodingTables:
        """Tables from float probabilities: pmfs[k] is float[lengths[k]] over the symbols from offsets[k] on.

        What a pmf lacks to 1 is the escape's. Values must be finite, >= 0 and sum to a positive number of at
        most 1 + 1e-4 (float32 sums are welcome). Raises ``ArtifactError``.
        """
        frequencies = []
        for k, pmf in enumerate(pmfs):
            p = np.asarray(pmf, dtype=np.float64)
            if p.ndim != 1 or not 1 <= p.size < TOTAL or not np.isfinite(p).all() or (p < 0).any():
                raise ArtifactError(f"coding table {k}: not a vector of 1 to {TOTAL - 1} probabilities")
            mass = float(p.sum())
            if not 0.0 < mass <= 1.0 + 1e-4:
                raise ArtifactError(f"coding table {k}: the probabilities sum to {mass:.6g}")
            p = np.append(p, max(0.0, 1.0 - mass))
            frequencies.append(apportion(np.floor(p * 2.0**40 + 0.5)))
        if not frequencies:
            raise ArtifactError("coding tables: no table")
        lengths = np.array([f.size - 1 for f in frequencies], dtype=np.int32)
        return cls(np.concatenate(frequencies), lengths, np.asarray(offsets))

    def symbol_bits(self, symbols: np.ndarray, table_index: np.ndarray) -> np.ndarray:
        """Ideal code length in bits, float64[n], of symbols int32[n] under table_index[n], escaped values included."""
        position = symbols.astype(np.int64) - self.offsets[table_index]
        length = self.lengths[table_index].astype(np.int64)
        escaped = (position < 0) | (position >= length)
        slot = self._starts[table_index] + np.where(escaped, length, position)
        bits = TOTAL_BITS - np.log2(self.frequencies[slot])
        distance = np.where(position < 0, -position, position - length + 1)[escaped]
        classes = np.frexp(distance.astype(np.float64))[1] - 1
        bits[escaped] += TOTAL_BITS - np.log2(ESCAPE_CLASSES[classes]) + classes + 1
        return bits

    def bits_floor(self) -> np.ndarray:
        """float64[K]: the fewest bits a symbol of each table can take, -log2(largest frequency / 2^16)."""
        return TOTAL_BITS - np.log2(np.maximum.reduceat(self.frequencies, self._starts[:-1]))

    def to_bytes(self) -> bytes:
        """The stored form (see the top of this file)."""
        parts = [pack_rice(zigzag(np.diff(self.table(k)[:-1].astype(np.int64), prepend=0))) for k in range(len(self))]
        sizes = np.array([len(part) for part in parts])
        lists = pack_rice(self.lengths), pack_rice(zigzag(self.offsets)), pack_rice(sizes)
        return b"".join([struct.pack("<I", len(self)), *lists, *parts])

    @classmethod
    def from_bytes(cls, data: bytes) -> CodingTables:
        """The inverse of :meth:`to_bytes`. Raises ``ArtifactError``, before claimed sizes take memory."""
        if len(data) < 4:
            raise ArtifactError("coding tables: truncated")
        count = int.from_bytes(data[:4], "little")
        if not 1 <= count <= MAX_TABLES:
            raise ArtifactError(f"coding tables: {count} tables claimed")
        at, lists = 4, []
        for _ in range(3):
            values, used = unpack_rice(data[at:], count)
            lists.append(values)
            at += used
        lengths, offsets, sizes = lists[0], unzigzag(lists[1]), lists[2]
        if int(lengths.sum()) + count > MAX_SLOTS:
            raise ArtifactError("coding tables: too many slots claimed")
        if int(sizes.sum()) != len(data) - at:
            raise ArtifactError("coding tables: the parts do not add up to the size")
        frequencies = []
        for length, size in zip(lengths.tolist(), sizes.tolist(), strict=True):
            if length < 1:
                raise ArtifactError("coding tables: a table without symbols")
            deltas, used = unpack_rice(data[at : at + size], length)
            if used != size:
                raise ArtifactError("coding tables: bytes left over in a table")
            table = np.cumsum(unzigzag(deltas))
            if int(table.min()) < 1 or int(table.max()) > TOTAL:
                raise ArtifactError("coding tables: a frequency out of range")
            frequencies += [table, [TOTAL - int(table.sum())]]
            at += size
        return cls(np.concatenate(frequencies), lengths, offsets)


def _integers(values: np.ndarray, name: str, dtype: np.dtype) -> np.ndarray:
    """A read-only copy of a vector of integers in ``dtype``, or ``ArtifactError`` if it does not fit."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ArtifactError(f"coding tables: {name} is not a vector of integers")
    info = np.iinfo(dtype)
    if int(array.min()) < info.min or int(array.max()) > info.max:
        raise ArtifactError(f"coding tables: {name} has a value beyond {dtype.name}")
    array = array.astype(dtype)
    array.flags.writeable = False
    return array
