"""How many threads the exact zone uses: one setting for NumPy's BLAS, for OpenVINO's kernels and for pieces of work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

_LIMIT: ContextVar[int | None] = ContextVar("threads", default=None)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """At most that many threads while it is open; None leaves the libraries' own choice.

    BLAS's limit is the whole process's: codecs of other limits that run at the same time may get this one. That
    changes how long they take, never what they compute (``exact.py``).
    """
    if threads is None:
        yield
        return
    token = _LIMIT.set(threads)
    try:
        with _controller().limit(limits=threads, user_api="blas"):
            yield
    finally:
        _LIMIT.reset(token)


def thread_limit() -> int | None:
    """The limit that is open around the caller, if any."""
    return _LIMIT.get()


def thread_count() -> int:
    """How many threads there are to share work among: the limit, or one for every core."""
    return thread_limit() or os.cpu_count() or 1


def in_parallel(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """``work`` of every item, in order; items at the same time, each on one thread, as many as the limit allows."""
    if min(thread_count(), len(items)) < 2:
        return [work(item) for item in items]
    pool = _pool(thread_count(), os.getpid())
    with limited_threads(1):
        contexts = [copy_context() for _ in items]
        return list(pool.map(lambda context, item: context.run(work, item), contexts, items))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """A process that was forked needs its own."""
    return ThreadPoolExecutor(threads, "licquant")


@cache
def _controller() -> ThreadpoolController:
    """Looking for the loaded libraries takes milliseconds, so once."""
    return ThreadpoolController()
