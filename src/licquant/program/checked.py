"""Exact sums of products by INT8 kernels, every result checked; what does not pass is left to floats.

OpenVINO multiplies bytes several times faster than BLAS multiplies floats, into sums of 32 bits that cannot
overflow here. Whether a machine really does it exactly depends on its instructions (without VNNI, pairs of products
saturate at 16 bits) and on the library, so nothing is believed: each result must agree with checksums (Freivalds
1979; Huang and Abraham 1984)

    Σ_o r[o] · acc[o, p]  =  Σ_k (Σ_o r[o] · w[o, k]) · x[k, p]        r[o] of 16 random bits, at every position p

which float64 computes exactly on both sides; two of them, with independent r. One wrong accumulator at a position
always shows, several are missed with a probability of 2^-32 at each position where there are any. A result that fails
at any position is thrown away, and the exact engine's float products take over: for good, unless sums beyond 2^24,
which float32 rounds, explain it. So kernels that err are all but certain to be found out; that is a probability, not a
proof, which only the float products have.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from licquant.program.arithmetic import Floats, Ints
from licquant.program.threads import thread_limit

# Multiply-accumulates: below the first, floats take less time than checking; compiling takes as long as the second in
# floats, so a layer that has done as many has earned it, and one image alone waits for no compiler.
SMALLEST_WORK, COMPILING = 1 << 26, 1 << 30
_BLOCK = 1 << 15  # values at a time, so that their float64 stays in the cache
_BYTE = 255
_LARGEST_WEIGHT = 127
_LARGEST_SUM = 1 << 24  # kernels hand their sums on as float32
_CHECKSUMS, _CHECK_BITS = 2, 16
_EXACT = 1 << 53  # integers below it are exact in float64


class CheckedCorrelation:
    """Plain correlation without padding: integers x [I, H, W], weight [O, I, kh, kw] → floats [O, H', W'], or None."""

    def __init__(self, weight: Ints, stride: int) -> None:
        self._weight, self._stride = weight, stride
        self._totals = weight.sum(axis=(1, 2, 3), dtype=np.float64)[:, None, None]
        factors = np.random.default_rng(0).integers(1, 1 << _CHECK_BITS, (_CHECKSUMS, len(weight)))
        checks = np.tensordot(factors, weight.astype(np.int64), 1)  # checksums, I, kh, kw
        self._factors, self._checks = factors.astype(np.float64), checks.astype(np.float64)
        bounds = abs(weight).sum(axis=(1, 2, 3), dtype=np.int64) * _BYTE
        largest = max(abs(checks).sum((1, 2, 3)).max() * _BYTE, (factors @ bounds).max())
        self.usable = bool(abs(weight).max(initial=0) <= _LARGEST_WEIGHT and largest < _EXACT)
        self._may_round = bool(bounds.max(initial=0) >= _LARGEST_SUM)
        self._done = 0  # multiply-accumulates that were left to floats
        self._of_thread, self._compiling = threading.local(), threading.Lock()
        self._compiled: dict[int | None, Any] = {}

    def __call__(self, x: Floats) -> Floats | None:
        """The exact sums; None for a little work, and where kernels cannot do it."""
        kh, kw = self._weight.shape[2:]
        work = self._weight.size * (x.shape[1] - kh + 1) * (x.shape[2] - kw + 1) // self._stride**2
        if not self.usable or work < SMALLEST_WORK:
            return None
        if self._done < COMPILING:
            self._done += work
            return None
        low = x.min()
        if x.max() - low > _BYTE:
            return None
        stored = np.empty(x.shape, dtype=np.uint8)
        np.subtract(x, low, out=stored, casting="unsafe")
        sums: Floats = self._kernel().infer([stored[None]], share_inputs=True)[0][0]
        if not np.array_equal(self._found(sums), self._expected(stored)):
            # What float32 rounds is no fault of the kernels: other images will do.
            self.usable = self._may_round and bool(abs(sums).max() >= _LARGEST_SUM)
            return None
        return sums + low * self._totals if low else sums  # x = stored + low

    def _found(self, sums: Floats) -> Floats:
        """The checksums [checksums, H', W'] of what the kernels return."""
        flat, found = sums.reshape(len(sums), -1), np.zeros((_CHECKSUMS, sums[0].size))
        for piece in _blocks(flat):
            found += self._factors[:, piece] @ flat[piece].astype(np.float64)
        return found.reshape(_CHECKSUMS, *sums.shape[1:])

    def _expected(self, stored: Ints) -> Floats:
        """The checksums [checksums, H', W'] by the other side of the equation: a convolution with so many outputs."""
        inputs, (kh, kw), stride = len(stored), self._weight.shape[2:], self._stride
        by_tap = self._checks.transpose(2, 3, 0, 1).reshape(-1, inputs)
        flat = stored.reshape(inputs, -1)
        maps = np.zeros((len(by_tap), flat.shape[1]))
        for piece in _blocks(flat):
            maps += by_tap[:, piece] @ flat[piece].astype(np.float64)
        maps = maps.reshape(kh, kw, _CHECKSUMS, *stored.shape[1:])
        height, width = stored.shape[1] - kh + 1, stored.shape[2] - kw + 1
        taps = [maps[a, b, :, a : a + height : stride, b : b + width : stride] for a in range(kh) for b in range(kw)]
        return np.sum(taps, axis=0)

    def _kernel(self) -> Any:
        """This thread's own, one for each limit of threads; what is compiled is shared."""
        kernels, limit = self._of_thread.__dict__.setdefault("kernels", {}), thread_limit()
        if limit not in kernels:
            with self._compiling:
                if limit not in self._compiled:
                    self._compiled[limit] = _compile(self._weight, self._stride, limit)
            kernels[limit] = self._compiled[limit].create_infer_request()
        return kernels[limit]


def _blocks(values: Ints | Floats) -> list[slice]:
    """The rows of a matrix, some at a time."""
    rows = max(1, _BLOCK // max(values.shape[1], 1))
    return [slice(first, first + rows) for first in range(0, len(values), rows)]


def _compile(weight: Ints, stride: int, threads: int | None) -> Any:
    from licquant.program.openvino_engine import compile_model  # here, as much does without OpenVINO
    from licquant.program.openvino_graph import correlation

    # What is limited to one thread may be one of several pieces of work.
    callers = os.cpu_count() or 1 if threads == 1 else 1
    return compile_model(correlation(weight, stride), threads, callers)
