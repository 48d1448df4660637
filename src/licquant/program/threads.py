"""How many threads the exact zone uses: one setting for NumPy's BLAS, for OpenVINO's kernels and for pieces of work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from threading import Lock, get_ident
from typing import Any, TypeVar

_LIMIT: ContextVar[int | None] = ContextVar("threads", default=None)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """At most that many threads while it is open; None leaves what is around it, or the libraries' own choice.

    A limit within another one, in the same thread or in work that it hands to others, can only be lower. BLAS has one
    limit for the whole process: while codecs overlap in several threads it is the lowest of theirs, so nobody gets
    more than was asked for, and whoever has no limit may get less. That changes how long they take, never what they
    compute (``exact.py``). Once the last limit is closed, in whatever order, BLAS has what it had before the first.
    """
    if threads is None:
        yield
        return
    outer = thread_limit()
    token = _LIMIT.set(threads if outer is None else min(threads, outer))
    try:
        with _BLAS.at_most(threads):
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
    """``work`` of every item, in order; items at the same time, each on one thread, as many as the limit allows.

    An error in a piece is raised when all that had begun have ended: none computes on without its limit.
    """
    if min(thread_count(), len(items)) < 2:
        return [work(item) for item in items]
    pool = _pool(thread_count(), os.getpid())
    with limited_threads(1):
        pieces = [pool.submit(copy_context().run, work, item) for item in items]
        try:
            return [piece.result() for piece in pieces]
        finally:
            for piece in pieces:
                piece.cancel()  # what an error has made useless; nothing else is left to cancel
            wait(pieces)


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """``work`` on another thread while it is open, if there may be two.

    Its errors are left to whoever needs what it was to make.
    """
    if thread_count() < 2:
        yield
        return
    piece = _pool(thread_count(), os.getpid()).submit(copy_context().run, work)
    try:
        yield
    finally:
        piece.exception()


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """A process that was forked needs its own."""
    return ThreadPoolExecutor(threads, "licquant")


class _BlasLimit:
    """The limits of BLAS that are open in any thread, and what was set before the first of them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: list[tuple[int, int]] = []  # thread, its limit
        self._before: list[tuple[Any, int]] = []  # library, its threads
        # A forked process has the thread that forked it alone: a limit of another would never be closed there.
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._forked)

    @contextmanager
    def at_most(self, threads: int) -> Iterator[None]:
        mine = (get_ident(), threads)
        with self._lock:
            if not self._open:
                self._before = [(library, library.num_threads) for library in _blas_libraries()]
            self._open.append(mine)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(mine)
                self._apply()

    def _apply(self) -> None:
        lowest = min((threads for _, threads in self._open), default=None)
        for library, before in self._before:
            # Newer threadpoolctl ignores whoever comes second, and gives a limit back to nobody but its first thread.
            free = getattr(library, "clear_controlling_thread", lambda force: None)
            free(force=True)
            library.set_num_threads(before if lowest is None else lowest)
            free(force=True)

    def _forked(self) -> None:
        self._open = [one for one in self._open if one[0] == get_ident()]
        self._apply()
        self._lock.release()


@cache
def _blas_libraries() -> list[Any]:
    """Looking for the loaded libraries takes milliseconds, so once."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:  # there is only NumPy: BLAS keeps the number of threads that it chose
        return []
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


_BLAS = _BlasLimit()
