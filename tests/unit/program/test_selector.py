"""Nested weights, the cells of the pooling and the choice: every rule against its definition."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from licquant.errors import LoweringError
from licquant.program.arithmetic import nested_weight, weight_range
from licquant.program.exact import ExactEngine
from licquant.program.selector import CELLS, Selector, cells, centred, pool, positions, sample
from tests.dynamic_programs import dynamic_artifact


@pytest.mark.parametrize("bits", range(3, 11))
def test_nested_weights_follow_the_rule(bits):
    low, high = weight_range(bits)
    weight = np.arange(low, high + 1)
    for narrower in range(2, bits):
        limit = 2 ** (narrower - 1) - 1
        expected = [
            max(-limit, min(limit, floor(Fraction(int(w), 2 ** (bits - narrower)) + Fraction(1, 2)))) for w in weight
        ]
        np.testing.assert_array_equal(nested_weight(weight, bits, narrower), expected)
    assert nested_weight(weight, bits, bits) is weight


@pytest.mark.parametrize("size", [*range(1, 90), 512, 1001])
def test_cells_are_those_of_adaptive_pooling(size):
    found = cells(size)
    assert len(found) == CELLS
    for i, cell in enumerate(found):
        first, end = floor(Fraction(i * size, CELLS)), -floor(-Fraction((i + 1) * size, CELLS))
        assert len(cell) == min(end - first, 4)
        assert (np.diff(cell) > 0).all()
        assert first <= cell[0] <= cell[-1] < end
        if end - first > 4:  # as far from one end as from the other
            assert abs((cell[0] - first) - (end - 1 - cell[-1])) <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 5), (13, 11), (13, 6), (15, 11)])
def test_pooling_is_the_rounded_mean_of_magnitudes(size):
    """Cells of at most 4 × 4: PyTorch's adaptive pooling reads the same, and float64 holds its sums exactly."""
    q = np.random.default_rng(0).integers(-70000, 70000, (4, *size))
    samples = sample(q, positions(size[0]), positions(size[1]))
    mean = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(abs(q)).double(), CELLS).numpy()
    np.testing.assert_array_equal(pool(samples, size), np.floor(mean * 256 + 0.5))


def test_pooling_of_a_large_tensor_reads_its_positions():
    q = np.random.default_rng(0).integers(-100, 100, (2, 203, 77))
    found = pool(sample(q, positions(203), positions(77)), (203, 77))
    rows, columns = cells(203), cells(77)
    block = abs(q[1][np.ix_(rows[3], columns[2])])
    assert found[1, 3, 2] == floor(Fraction(int(block.sum()) * 256, block.size) + Fraction(1, 2))


def test_pooling_stays_within_fixed_point():
    assert pool(np.full((1, 5, 5), -(2.0**31) + 1), (5, 5)).max() == 2**31 - 1


def test_floats_are_rounded_before_they_are_centred():
    found = centred(np.array([[[2.5, 2.4999]], [[7.0001, -0.5]]], dtype=np.float32), np.array([1, 2]))
    np.testing.assert_array_equal(found, [[[2, 1]], [[5, -2]]])


@pytest.fixture(scope="module")
def selector() -> Selector:
    return dynamic_artifact().dynamic["g_a"].selector


def test_the_lowest_of_equal_logits_is_chosen(selector):
    assert selector.candidates == ((4, 6, 8), (4, 6, 8))
    assert selector.choice(np.array([5, 5, 1, -3, 7, 7]).reshape(6, 1, 1)) == (4, 6)
    assert selector.choice(np.array([0, 0, 0, -3, -4, 7]).reshape(6, 1, 1)) == (4, 8)


def test_the_choice_depends_on_what_is_read(selector):
    run = ExactEngine(selector.network).run
    rng = np.random.default_rng(0)
    found = {selector.choice(run(rng.integers(0, 4000, (5, 5, 5)) * rng.integers(0, 2, (5, 1, 1)))) for _ in range(30)}
    assert len(found) > 2


@pytest.mark.parametrize("widths", [(6, 4, 8), (4, 4, 8), (1, 4, 8), (4, 8, 17), (4, 5, 6, 7), (8,), ()])
def test_widths_that_do_not_fit_are_refused(selector, widths):
    with pytest.raises(LoweringError):
        Selector(selector.tensor, ((4, 6, 8), widths), selector.network)
    with pytest.raises(LoweringError):
        Selector(selector.tensor, (), selector.network)


def test_stages_may_have_different_numbers_of_widths(selector):
    uneven = replace(selector, candidates=((4, 8), (3, 4, 6, 7)))
    assert uneven.choice(np.array([5, 7, 9, 1, 9, -3]).reshape(6, 1, 1)) == (8, 3)
    assert uneven.choice(np.array([5, 5, 1, 1, 1, 2]).reshape(6, 1, 1)) == (4, 7)
