"""Rice coding of small non-negative integers: how tables and histograms are stored.

Layout: one byte k (0..32); a bit section of unary quotients ``v >> k`` (that many zeros, then a one); a bit
section of the k-bit remainders; zero bits up to the next byte. k is the one that gives the fewest bits. It
needs no tables of its own, gives the same bytes everywhere (zlib's differ between its builds), and cannot
expand: every value costs at least one bit, so a claimed count beyond eight times the bytes at hand is refused
before anything is allocated for it.
"""

from __future__ import annotations

import numpy as np

from licquant.errors import ArtifactError

__all__ = ["pack_rice", "unpack_rice", "unzigzag", "zigzag"]

_MAX_K = 32


def zigzag(values: np.ndarray) -> np.ndarray:
    """Signed int64 to non-negative int64: 0, -1, 1, -2, 2, ... become 0, 1, 2, 3, 4, ...; |values| < 2^62."""
    values = values.astype(np.int64)
    return (values << 1) ^ (values >> 63)


def unzigzag(values: np.ndarray) -> np.ndarray:
    """The inverse of :func:`zigzag`, int64."""
    return (values >> 1) ^ -(values & 1)


def pack_rice(values: np.ndarray) -> bytes:
    """Bytes of values[n], non-negative integers below 2^34; the count is not stored."""
    v = values.astype(np.int64)
    costs = [v.size * (k + 1) + int((v >> k).sum()) for k in range(_MAX_K + 1)]
    k = int(np.argmin(costs))
    bits = np.zeros(costs[k], dtype=np.uint8)
    ends = np.cumsum((v >> k) + 1)
    bits[ends - 1] = 1
    unary = costs[k] - v.size * k
    bits[unary:] = ((v[:, None] >> np.arange(k)) & 1).ravel()
    return bytes([k]) + np.packbits(bits, bitorder="little").tobytes()


def unpack_rice(data: bytes, count: int) -> tuple[np.ndarray, int]:
    """``(values, used)``: int64[count], and how many bytes of ``data`` they took.

    Raises ``ArtifactError`` if the data is too short for ``count`` values or is not in the one form that
    :func:`pack_rice` writes. Memory: at most 8 bytes a bit of ``data``, whatever ``count`` says.
    """
    if not data or data[0] > _MAX_K:
        raise ArtifactError("an integer list is missing or has an unknown form")
    k = data[0]
    if count * (k + 1) > 8 * (len(data) - 1):
        raise ArtifactError(f"an integer list of {count} values does not fit into {len(data)} bytes")
    if count == 0:
        return np.zeros(0, dtype=np.int64), 1
    # The list may be the start of something long: look at growing pieces until its last value has been seen.
    payload = np.frombuffer(data, dtype=np.uint8, offset=1)
    window = 16 + count * (k + 3) // 8
    while True:
        bits = np.unpackbits(payload[:window], bitorder="little")
        ends = np.flatnonzero(bits)[:count]
        if window >= payload.size or (ends.size == count and int(ends[-1]) + 1 + count * k <= bits.size):
            break
        window *= 4
    if ends.size < count:
        raise ArtifactError("an integer list is truncated")
    unary = int(ends[-1]) + 1
    total = unary + count * k
    used = 1 + -(-total // 8)
    if used > len(data) or bits[total : 8 * used - 8].any():
        raise ArtifactError("an integer list is truncated or badly padded")
    quotients = np.diff(ends, prepend=-1) - 1
    if int(quotients.max()) >> (34 - k):
        raise ArtifactError("an integer list holds a value that is too large")
    remainders = bits[unary:total].reshape(count, k).astype(np.int64) << np.arange(k)
    return (quotients.astype(np.int64) << k) + remainders.sum(axis=1, dtype=np.int64), used
