"""The limit holds for BLAS while it is open, and for nothing afterwards."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from licquant.program.threads import in_parallel, limited_threads, thread_limit


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
