"""The limit holds for BLAS while it is open, and for nothing afterwards."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from threading import Barrier, Event, Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from licquant.codec.codec import load
from licquant.program.threads import in_parallel, limited_threads, thread_limit

GOLDEN = Path(__file__).parents[2] / "golden"


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_the_limit_is_open_as_long_as_the_block():
    before = blas_threads()
    assert before, "NumPy's BLAS is not one that threads can be set for"
    with limited_threads(1):
        assert (blas_threads(), thread_limit()) == ({1}, 1)
    assert (blas_threads(), thread_limit()) == (before, None)
    with limited_threads(None):
        assert (blas_threads(), thread_limit()) == (before, None)


def test_an_error_inside_takes_the_limit_back():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), limited_threads(1):
        1 / 0  # noqa: B018
    assert (blas_threads(), thread_limit()) == (before, None)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pieces_come_back_in_order_and_have_one_thread_each(threads):
    before = blas_threads()
    with limited_threads(threads):
        found = in_parallel(lambda n: (n * n, thread_limit()), range(7))
    assert found == [(n * n, 1) for n in range(7)]
    assert (blas_threads(), thread_limit()) == (before, None)


def test_an_error_in_a_piece_is_the_callers():
    with limited_threads(2), pytest.raises(ZeroDivisionError):
        in_parallel(lambda n: 1 / n, [1, 0, 2])


@pytest.mark.parametrize("threads", [2, 3])
def test_an_error_in_a_piece_waits_for_the_others_which_keep_their_limit(threads):
    began, found = Event(), []

    def work(n: int) -> None:
        if n == 0:
            began.wait(10)
            raise ZeroDivisionError
        began.set()
        time.sleep(0.05)
        found.append((blas_threads(), thread_limit()))

    with limited_threads(threads), pytest.raises(ZeroDivisionError):
        in_parallel(work, [0, 1])
    assert found == [({1}, 1)]


@contextmanager
def blas_of(threads: int) -> Iterator[None]:
    """BLAS as a process finds it that has so many cores."""
    with threadpool_limits(threads, user_api="blas"):
        yield


class Actor:
    """Opens a limit and closes it, as it is told, in a thread of its own."""

    def __init__(self, threads: int, fails: bool) -> None:
        self.threads, self.fails, self.orders, self.answers = threads, fails, Queue[None](), Queue[object]()
        self.thread = Thread(target=self._act)
        self.thread.start()

    def tell(self) -> object:
        """Open, the first time; close, the second: what the thread's limit is then."""
        self.orders.put(None)
        return self.answers.get(timeout=10)

    def _act(self) -> None:
        try:
            self.orders.get()
            with limited_threads(self.threads):
                self.answers.put(thread_limit())
                self.orders.get()
                if self.fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        self.answers.put(thread_limit())


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=2, max_size=4), st.data())
@settings(max_examples=30, deadline=None)
def test_limits_that_overlap_in_any_order_leave_what_was_there_before(limits, data):
    turns = data.draw(st.permutations([*range(len(limits)), *range(len(limits))]))
    with blas_of(5):
        actors, opened = [Actor(*limit) for limit in limits], dict[int, int]()
        for who in turns:
            found = actors[who].tell()
            if who in opened:
                del opened[who]
                assert found is None
            else:
                opened[who] = limits[who][0]
                assert found == limits[who][0]
            assert blas_threads() == {min(opened.values(), default=5)}
        for actor in actors:
            actor.thread.join()


def test_codecs_of_other_limits_overlap_and_leave_what_was_there_before():
    """Every one begins within another and ends after it began to end: the order that once left BLAS at one thread."""
    data = (GOLDEN / "dynamic.lic").read_bytes()
    codecs = [load(GOLDEN / "dynamic.licq", threads=threads) for threads in (1, 2, 3, None)]
    expected = codecs[0].decode(data)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1], [1, 0]):
        barrier, found = Barrier(len(order)), []

        def work(codec, barrier=barrier, found=found):
            barrier.wait(10)
            for _ in range(4):
                found.append(np.array_equal(codec.decode(data), expected))

        with blas_of(4):
            threads = [Thread(target=work, args=(codecs[n],)) for n in order]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert found == [True] * 4 * len(order)
            assert blas_threads() == {4}


def test_pools_that_overlap_leave_what_was_there_before():
    def call(threads: int) -> list[int]:
        with limited_threads(threads):
            return in_parallel(lambda n: time.sleep(0.001 * (n % 3)) or n, range(9))

    with blas_of(4), ThreadPoolExecutor(4) as callers:
        assert list(callers.map(call, [2, 3, 2, 1, 3, 3, 2, 1])) == [list(range(9))] * 8
        assert blas_threads() == {4}


def test_a_limit_within_a_limit_can_only_be_lower():
    with blas_of(4), limited_threads(2):
        with limited_threads(3):
            assert (blas_threads(), thread_limit()) == ({2}, 2)
        with limited_threads(1):
            assert (blas_threads(), thread_limit()) == ({1}, 1)
        assert (blas_threads(), thread_limit()) == ({2}, 2)


def test_a_forked_process_does_not_inherit_the_limits_of_threads_that_it_lacks():
    with blas_of(4):
        other = Actor(1, fails=False)
        other.tell()
        with limited_threads(2):
            child = os.fork()
            if child == 0:
                inside, code = blas_threads(), 1
                with suppress(BaseException), limited_threads(3):
                    code = 0 if (inside, blas_threads()) == ({2}, {2}) else 2
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        other.tell()
        assert blas_threads() == {4}
