"""Products by INT8 kernels: equal to integers wherever they are used, and not used where they would not be."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from licquant.program import checked
from licquant.program.checked import CheckedCorrelation
from licquant.program.exact import exact_product
from licquant.program.openvino_engine import machine
from licquant.program.self_test import Sums

# Where pairs of products saturate, kernels are tested as anywhere, and floats do the work.
EXACT = machine().sums(["convolution"])["convolution"] is Sums.EXACT


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Kernels from the first use on, whatever the size."""
    monkeypatch.setattr(checked, "SMALLEST_WORK", 0)
    monkeypatch.setattr(checked, "COMPILING", 0)


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high + 1, shape)


def expected(weight: np.ndarray, x: np.ndarray, stride: int) -> np.ndarray:
    windows = sliding_window_view(x.astype(np.int64), weight.shape[2:], (1, 2))[:, ::stride, ::stride]
    return np.einsum("oiab,ihwab->ohw", weight, windows)


def wrong_by(error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels whose very last sum is off."""
    right = checked._compile

    def compile_wrong(*arguments):
        request = right(*arguments).create_infer_request()

        def infer(*args, **options):
            sums = request.infer(*args, **options)[0].copy()
            sums[0, -1, -1, -1] += error
            return [sums]

        return SimpleNamespace(create_infer_request=lambda: SimpleNamespace(infer=infer))

    monkeypatch.setattr(checked, "_compile", compile_wrong)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (5, 2)])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-100, 0), (7, 90)])
def test_sums_are_those_of_integers(kernel, stride, low, high):
    weight, x = integers(-127, 127, 6, 9, kernel, kernel), integers(low, high, 9, 10, 13)
    found = CheckedCorrelation(weight, stride)(x.astype(np.float64))
    assert found is not None or not EXACT
    if found is not None:
        np.testing.assert_array_equal(found, expected(weight, x, stride))


def test_channels_may_have_bytes_of_their_own():
    """A zero point for each channel: together they span more than a byte, each alone does not."""
    weight, x = integers(-127, 127, 6, 9, 3, 3), integers(0, 255, 9, 10, 13) - 60 * np.arange(9)[:, None, None]
    found = CheckedCorrelation(weight, 1)(x.astype(np.float32))
    assert found is not None or not EXACT
    if found is not None:
        np.testing.assert_array_equal(found, expected(weight, x, 1))
    x[4, 0, 0] += 256
    assert CheckedCorrelation(weight, 1)(x.astype(np.float32)) is None


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_do_not_saturate_unnoticed(sign):
    weight, x = np.full((4, 64, 3, 3), 127 * sign), np.full((64, 8, 8), 255)
    found = CheckedCorrelation(weight, 1)(x.astype(np.float64))
    assert found is None or np.array_equal(found, expected(weight, x, 1))


@pytest.mark.parametrize("error", [1, -4096, 1 << 25])
def test_one_wrong_sum_is_found_and_the_kernel_not_used_again(error, monkeypatch):
    wrong_by(error, monkeypatch)
    weight, x = integers(-127, 127, 6, 9, 3, 3), integers(-128, 127, 9, 10, 13).astype(np.float64)
    correlation = CheckedCorrelation(weight, 1)
    assert correlation(x) is None
    assert not correlation.usable


def test_products_are_right_with_wrong_kernels(monkeypatch):
    wrong_by(1, monkeypatch)
    weight, x = integers(-127, 127, 8, 20), integers(0, 255, 20, 30)
    product = exact_product(weight, np.full(20, 255))
    for _ in range(2):
        np.testing.assert_array_equal(product(x.astype(np.float32)), weight @ x)


def test_without_openvino_floats_do_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "licquant.program.openvino_engine", None)  # cannot be imported
    weight, x = integers(-127, 127, 8, 20), integers(0, 255, 20, 30)
    product = exact_product(weight, np.full(20, 255))
    for _ in range(2):
        np.testing.assert_array_equal(product(x.astype(np.float32)), weight @ x)


def test_what_does_not_fit_bytes_or_float32_is_left_to_floats():
    wide = CheckedCorrelation(integers(-2000, 2000, 2, 3, 1, 1), 1)
    assert wide(integers(0, 255, 3, 4, 4).astype(np.float64)) is None
    narrow = CheckedCorrelation(integers(-127, 127, 2, 3, 1, 1), 1)
    assert narrow(integers(0, 300, 3, 4, 4).astype(np.float64)) is None
    long = CheckedCorrelation(np.full((2, 600, 1, 1), 127), 1)
    x = np.zeros((600, 4, 4))
    x[1:, 1:] = 255
    assert long(x) is None  # 127 · 255 · 599 > 2^24
    assert long.usable == EXACT
    x[1:, 1:] = 200
    assert (long(x) is not None) == EXACT


def test_a_layer_must_earn_its_kernel(monkeypatch):
    weight, x = integers(-127, 127, 2, 3, 1, 1), integers(0, 255, 3, 4, 4).astype(np.float64)
    monkeypatch.setattr(checked, "COMPILING", 2 * weight.size * 16)
    correlation = CheckedCorrelation(weight, 1)
    assert [correlation(x) is None for _ in range(4)] == [True, True, False, False]
    monkeypatch.setattr(checked, "SMALLEST_WORK", weight.size * 16 + 1)
    assert correlation(x) is None


def test_pieces_of_work_do_not_wait_for_one_another():
    """With one stream, inferences of several threads would run one after another."""
    compiled = checked._compile(integers(-127, 127, 6, 9, 3, 3), 1, 1)
    assert compiled.get_property("NUM_STREAMS") == os.cpu_count()
