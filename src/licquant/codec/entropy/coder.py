"""The coder: int32 symbols to bytes and back, each symbol with the coding table that its index names.

One payload is one ANS stack, nothing else: no length, no sections. What the decoder pops, group after group:

    for every table k that the group uses, ascending: its symbols' slots, in order (one i.i.d. call)
    if any slot was the escape: the classes of the distances, then per class, ascending, the raw bits

A group is what can be decoded at once: one for a hyperprior model, one per diagonal or pass for a context
model. Sorting by table makes every call i.i.d. with a ready model, which is many times faster than a model
per symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from licquant.codec.entropy.ans import (
    coder_from_bytes,
    coder_to_bytes,
    frequency_model,
    is_exhausted,
    new_coder,
    pop_bits,
    push_bits,
)
from licquant.codec.entropy.tables import ESCAPE_CLASSES, CodingTables
from licquant.errors import BitstreamError

__all__ = ["SymbolDecoder", "decode_symbols", "encode_groups", "encode_symbols"]

_INT32 = np.iinfo(np.int32)
_NO_SLOTS = np.zeros(0, dtype=np.int32)
_CLASS_MODEL = frequency_model(ESCAPE_CLASSES)


def encode_symbols(symbols: np.ndarray, table_index: np.ndarray, tables: CodingTables) -> bytes:
    """Code symbols int32[n] (any values) with the tables that table_index, integers[n] in [0, K), names.

    Raises ``ValueError`` (a caller's mistake) if shapes or dtypes do not fit or an index is not in [0, K).
    """
    return encode_groups([(symbols, table_index)], tables)


def encode_groups(groups: Sequence[tuple[np.ndarray, np.ndarray]], tables: CodingTables) -> bytes:
    """Code groups ``(symbols, table_index)`` into one payload that :class:`SymbolDecoder` reads in order."""
    coder = new_coder()
    for symbols, table_index in reversed(groups):
        _push_group(coder, symbols, table_index, tables)
    return coder_to_bytes(coder)


def decode_symbols(data: bytes, table_index: np.ndarray, tables: CodingTables) -> np.ndarray:
    """int32[n]: the inverse of :func:`encode_symbols`. Raises ``BitstreamError`` on other data."""
    decoder = SymbolDecoder(data, tables)
    symbols = decoder.decode(table_index)
    decoder.finish()
    return symbols


class SymbolDecoder:
    """Reads a payload group by group: ``decode`` for each, in the encoder's order, then ``finish``."""

    def __init__(self, data: bytes, tables: CodingTables) -> None:
        """Raises ``BitstreamError`` if ``data`` cannot be a payload."""
        try:
            self._coder = coder_from_bytes(data)
        except ValueError as error:
            raise BitstreamError(f"corrupted payload: {error}") from None
        self._tables = tables

    def decode(self, table_index: np.ndarray) -> np.ndarray:
        """int32[n]: the next group's symbols. Raises ``BitstreamError`` on a value that no encoder writes."""
        tables = self._tables
        order, counts = _sort_by_table(table_index, tables)
        used = np.flatnonzero(counts)
        decode, model = self._coder.decode, tables.model
        slots = np.concatenate(
            [decode(model(k), n) for k, n in zip(used.tolist(), counts[used].tolist(), strict=True)] or [_NO_SLOTS]
        )
        lengths, offsets = (np.repeat(a[used], counts[used]) for a in (tables.lengths, tables.offsets))
        escaped = np.flatnonzero(slots == lengths)
        slots += offsets  # wraps around for escapes only, which are replaced
        if escaped.size:
            slots[escaped] = _pop_escapes(self._coder, offsets[escaped], lengths[escaped])
        symbols = np.empty_like(slots)
        symbols[order] = slots
        return symbols

    def finish(self) -> None:
        """Raises ``BitstreamError`` unless the payload has been used up exactly."""
        if not is_exhausted(self._coder):
            raise BitstreamError("corrupted payload: it does not end where its last symbol does")


def _sort_by_table(table_index: np.ndarray, tables: CodingTables) -> tuple[np.ndarray, np.ndarray]:
    """``(order, counts)``: the stable order by table, int64[n], and each table's symbols, int64[K]."""
    if table_index.ndim != 1 or table_index.dtype.kind not in "iu":
        raise ValueError("table_index must be a vector of integers")
    if table_index.size == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(len(tables), dtype=np.int64)
    if table_index.dtype.itemsize > 2 or table_index.dtype.kind == "i":
        if int(table_index.min()) < 0 or int(table_index.max()) >= len(tables):
            raise ValueError(f"table_index must be in [0, {len(tables)})")
        table_index = table_index.astype(np.uint16)  # of at most 16 bits NumPy sorts by radix, in linear time
    counts = np.bincount(table_index, minlength=len(tables))
    if counts.size > len(tables):
        raise ValueError(f"table_index must be in [0, {len(tables)})")
    return np.argsort(table_index, kind="stable"), counts


def _push_group(coder: Any, symbols: np.ndarray, table_index: np.ndarray, tables: CodingTables) -> None:
    """Push one group: its escapes first, then its tables from last to first, as ANS reverses everything."""
    if symbols.dtype != np.int32 or symbols.shape != table_index.shape:
        raise ValueError("symbols must be int32, one for each table index")
    order, counts = _sort_by_table(table_index, tables)
    used = np.flatnonzero(counts)
    values = symbols[order]
    lengths, offsets = (np.repeat(a[used], counts[used]) for a in (tables.lengths, tables.offsets))
    slots = values - offsets  # modulo 2^32, so that one unsigned comparison finds both sides
    escaped = np.flatnonzero(slots.view(np.uint32) >= lengths.view(np.uint32))
    if escaped.size:
        slots[escaped] = lengths[escaped]
        _push_escapes(coder, values[escaped], offsets[escaped], lengths[escaped])
    end = slots.size
    for k in reversed(used.tolist()):
        start = end - int(counts[k])
        coder.encode_reverse(slots[start:end], tables.model(k))
        end = start


def _push_escapes(coder: Any, values: np.ndarray, offsets: np.ndarray, lengths: np.ndarray) -> None:
    """Push values[m] outside [offset, offset + length): raw bits of the highest class first, the classes
    last.

    The raw bits of a distance d of class c, 2^c <= d < 2^(c+1), are 2·(d - 2^c) + side, c + 1 bits; side 1 is
    below.
    """
    position = values.astype(np.int64) - offsets
    below = position < 0
    distance = np.where(below, -position, position - lengths + 1)  # 1 .. 2^32
    classes = np.frexp(distance.astype(np.float64))[1] - 1  # exact: the distances are below 2^53
    raw = ((distance - (np.int64(1) << classes.astype(np.int64))) << 1) | below
    for c in reversed(np.unique(classes).tolist()):
        push_bits(coder, raw[classes == c], c + 1)
    coder.encode_reverse(classes.astype(np.int32), _CLASS_MODEL)


def _pop_escapes(coder: Any, offsets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int32[m]: the inverse of :func:`_push_escapes`."""
    classes = coder.decode(_CLASS_MODEL, offsets.size)
    raw = np.empty(offsets.size, dtype=np.int64)
    for c in np.unique(classes).tolist():
        chosen = classes == c
        raw[chosen] = pop_bits(coder, int(chosen.sum()), c + 1)
    distance = (raw >> 1) + (np.int64(1) << classes.astype(np.int64))
    first = offsets.astype(np.int64)
    values = np.where(raw & 1, first - distance, first + lengths + distance - 1)
    if int(values.min()) < _INT32.min or int(values.max()) > _INT32.max:
        raise BitstreamError("corrupted payload: a symbol beyond the range of int32")
    return values.astype(np.int32)
