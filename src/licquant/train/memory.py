"""Keep the memory of one step for the next, instead of giving it back to the system in between.

The activations of a step are blocks of several megabytes. glibc takes such blocks straight from the system
and returns them as soon as they are freed; each step then pays for clearing and mapping every page again:
more than a quarter of its processor time.
"""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """From here on, the process keeps for itself what it frees; without glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
