"""PyTorch's threads are the whole process's: what a call has set for itself is not left to its caller."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_threads() -> Iterator[None]:
    """Afterwards PyTorch has as many threads as before, whatever was set in between; also a decorator."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
