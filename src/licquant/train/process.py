"""What training changes of the whole process: PyTorch's threads, and what becomes of freed memory.

Threads: what a call has set for itself is not left to its caller. Memory: that of one step is kept for the next,
instead of given back to the system in between. The activations of a step are blocks of several megabytes. glibc takes
such blocks straight from the system and returns them as soon as they are freed; each step then pays for clearing and
mapping every page again: more than a quarter of its processor time.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


@contextmanager
def kept_threads() -> Iterator[None]:
    """Afterwards PyTorch has as many threads as before, whatever was set in between; also a decorator."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """From here on, the process keeps for itself what it frees; without glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
