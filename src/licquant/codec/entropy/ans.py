"""The one place that touches constriction, or ``plain_ans`` where that cannot be imported: models with exact integer
frequencies, and the byte form of an ANS stack.

An ANS coder is a stack: what is pushed last is popped first, so every encoder here pushes its parts in the
reverse of the order in which the decoder pops them. A coder starts at state ``_BOTTOM`` and a decoder that
undoes every push is there again. Any state below 2^24 would be a trap, left unchanged by popping the first
slot of a model for ever, so that a truncated stack went unnoticed; from 2^24 every pop below the bottom leads
further down. This is no checksum, as a decoder that went astray can fall into step again before the end: the
files carry their own.

Exactness: ``Categorical(perfect=False)`` gives slot i of n the half-open interval of the 24-bit range that
starts at ``floor(C_i·(2^24 - n)) + i``, C_i being the sum of the probabilities before i. The probabilities
are multiples of 2^-16 in float64, so every sum and every product (at most 40 bits) is exact and the intervals
follow from the integer frequencies alone. Slot i so gets f_i·2^8 up to a relative error below n·2^-24 plus
one unit; a test pins the intervals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from licquant.codec.entropy import plain_ans

try:
    import constriction
except ImportError:  # no wheel for this machine: the same words, slowly
    constriction = None

__all__ = [
    "TOTAL",
    "TOTAL_BITS",
    "coder_from_bytes",
    "coder_to_bytes",
    "frequency_model",
    "is_exhausted",
    "new_coder",
    "pop_bits",
    "push_bits",
]

TOTAL_BITS = 16
TOTAL = 1 << TOTAL_BITS  # what the frequencies of one table sum to

# The same three names in both.
AnsCoder, Categorical, Uniform = (
    (plain_ans.AnsCoder, plain_ans.Categorical, plain_ans.Uniform)
    if constriction is None
    else (constriction.stream.stack.AnsCoder, constriction.stream.model.Categorical, constriction.stream.model.Uniform)
)

_BOTTOM = 1 << 24
_RAW_CHUNK = 16  # raw bits pushed at a time; Uniform takes sizes below 2^24, and powers of two are exact


def frequency_model(frequencies: np.ndarray) -> Any:
    """The coder's model of one table: integer frequencies[n], n >= 2, each >= 1, summing to 2^16."""
    return Categorical(np.asarray(frequencies, dtype=np.float64) / TOTAL, perfect=False)


def new_coder() -> Any:
    """An ANS coder with nothing above the bottom, ready to push."""
    return AnsCoder(np.array([_BOTTOM], dtype=np.uint32))


def is_exhausted(coder: Any) -> bool:
    """Whether everything above the bottom has been popped, and nothing more."""
    return bool(coder.pos() == (0, _BOTTOM))


def coder_to_bytes(coder: Any) -> bytes:
    """The stack as little-endian 32-bit words without zero bytes at the end; ``b""`` if it is exhausted."""
    if is_exhausted(coder):
        return b""
    return bytes(coder.get_compressed().astype("<u4").tobytes()).rstrip(b"\0")


def coder_from_bytes(data: bytes) -> Any:
    """The inverse of :func:`coder_to_bytes`; ``ValueError`` on data that it does not write."""
    if not data:
        return new_coder()
    if data[-1] == 0:
        raise ValueError("the coded data ends in a zero byte")
    coder = AnsCoder(np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32))
    if is_exhausted(coder):
        raise ValueError("the coded data is empty but not in the shortest form")
    return coder


def push_bits(coder: Any, values: np.ndarray, bits: int) -> None:
    """Push values[n] (non-negative, below 2^bits) at exactly ``bits`` bits each; bits in 0..48."""
    for shift in range(0, bits, _RAW_CHUNK):
        width = min(_RAW_CHUNK, bits - shift)
        part = (values >> shift) & ((1 << width) - 1)
        coder.encode_reverse(part.astype(np.int32), Uniform(1 << width))


def pop_bits(coder: Any, count: int, bits: int) -> np.ndarray:
    """Pop ``count`` values of ``bits`` bits each, int64[count]: the inverse of :func:`push_bits`."""
    values = np.zeros(count, dtype=np.int64)
    if count:
        for shift in reversed(range(0, bits, _RAW_CHUNK)):
            width = min(_RAW_CHUNK, bits - shift)
            values |= coder.decode(Uniform(1 << width), count).astype(np.int64) << shift
    return values
