"""Exact sums of products by INT8 kernels, where bounds and a test of the very layer allow it; floats elsewhere.

OpenVINO multiplies bytes several times faster than BLAS multiplies floats. What is proved, from the weights alone or
from the result:

    int32    Σ|w| · 255 < 2^31: no partial sum overflows, in any order
    float32  all |sums| < 2^24: handing them on as floats did not round them, as rounding keeps what is larger so

What is tested: kernels may add pairs of products in 16 bits that saturate (without VNNI), halve the weights, or err in
a way not thought of. So before a compiled layer is used it must give the exact sums of the largest input there is,
where every pair of products that can saturate does, and of mixtures of the extremes, at some positions for all outputs.
What is assumed is that a kernel which does so computes the same function for other values and sizes. A layer that fails
is left to the exact engine's float products, which need no assumption but IEEE 754.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from licquant.program.arithmetic import Floats, Ints
from licquant.program.threads import thread_limit

# Multiply-accumulates: below the first, floats take less time than checking; compiling takes as long as the second in
# floats, so a layer that has done as many has earned it, and one image alone waits for no compiler.
SMALLEST_WORK, COMPILING = 1 << 26, 1 << 30
_BYTE = 255
_LARGEST_WEIGHT = 127
_LARGEST_SUM = 1 << 24  # kernels hand their sums on as float32
_INT32 = 1 << 31
_TESTED = 8  # rows and columns of the sums that are tested


class CheckedCorrelation:
    """Plain correlation without padding: integers x [I, H, W], weight [O, I, kh, kw] → floats [O, H', W'], or None."""

    def __init__(self, weight: Ints, stride: int) -> None:
        self._weight, self._stride = weight, stride
        self._totals = weight.sum(axis=(2, 3), dtype=np.float64)
        bounds = abs(weight).sum(axis=(1, 2, 3), dtype=np.int64) * _BYTE
        self.usable = bool(abs(weight).max(initial=0) <= _LARGEST_WEIGHT and bounds.max(initial=0) < _INT32)
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
        # Of each channel: what they read is a byte each, less a zero point of its own.
        low = x.min(axis=(1, 2))
        if (x.max(axis=(1, 2)) - low).max() > _BYTE:
            return None
        stored = np.empty(x.shape, dtype=np.uint8)
        np.subtract(x, low[:, None, None], out=stored, casting="unsafe")
        kernel = self._kernel()
        if kernel is None:
            return None
        sums: Floats = kernel.infer([stored[None]], share_inputs=True)[0][0]
        if self._may_round and abs(sums).max() >= _LARGEST_SUM:
            return None  # no fault of the kernels: other images will do
        # x = stored + low; integers below 2^53 in float64, as every accumulator is.
        return sums + (self._totals @ low)[:, None, None] if low.any() else sums

    def _passes(self, request: Any) -> bool:
        """Whether the layer's own kernels give the exact sums for the extremes of bytes, and mixtures of them."""
        inputs, (kh, kw), stride = self._weight.shape[1], self._weight.shape[2:], self._stride
        size = [_TESTED * stride + k - 1 for k in (kh, kw)]
        mixed = np.random.default_rng(0).choice([0, _BYTE], (inputs, *size))
        for x in (np.full((inputs, *size), _BYTE), mixed):
            windows: Floats = sliding_window_view(x.astype(np.float64), (kh, kw), (1, 2))  # type: ignore[call-overload]
            windows = windows[:, ::stride, ::stride]
            exact = np.tensordot(self._weight.astype(np.float64), windows, ((1, 2, 3), (0, 3, 4)))
            # Below 2^53 these floats are integers; those beyond 2^24 come out rounded, once.
            found = request.infer([x[None].astype(np.uint8)], share_inputs=True)[0][0]
            if not np.array_equal(found, exact.astype(np.float32)):
                return False
        return True

    def _kernel(self) -> Any:
        """This thread's own, one for each limit of threads; what is compiled is shared, and tested first.

        None if it failed.
        """
        kernels, limit = self._of_thread.__dict__.setdefault("kernels", {}), thread_limit()
        if limit not in kernels:
            with self._compiling:
                if limit not in self._compiled:
                    try:
                        compiled = _compile(self._weight, self._stride, limit)
                    except ImportError:  # no OpenVINO on this machine: floats do it
                        self.usable = False
                        return None
                    self.usable = self.usable and self._passes(compiled.create_infer_request())
                    self._compiled[limit] = compiled
            kernels[limit] = self._compiled[limit].create_infer_request()
        return kernels[limit] if self.usable else None


def _compile(weight: Ints, stride: int, threads: int | None) -> Any:
    from licquant.program.openvino_engine import compile_model  # here, as much does without OpenVINO
    from licquant.program.openvino_graph import correlation

    # What is limited to one thread may be one of several pieces of work.
    callers = os.cpu_count() or 1 if threads == 1 else 1
    return compile_model(correlation(weight, stride), threads, callers)
