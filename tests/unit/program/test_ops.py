"""Hand-computed results of single operations, and parts that are refused."""

import numpy as np
import pytest
import torch

from licquant.errors import LoweringError
from licquant.program import reference
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import Multiply, Operation, PixelShuffle, Requantize, Rescaling, Sigmoid
from licquant.program.part import Part


def grid(channels: int, zero_point: int = 0, bits: int = 8) -> Grid:
    return Grid(bits, np.full(channels, 0.1), np.full(channels, zero_point))


def result(read: Grid, *operations: Operation, q: np.ndarray) -> np.ndarray:
    part = Part("part", read, operations)
    found = ExactEngine(part).run(q)
    np.testing.assert_array_equal(found, reference.run(part, q))
    return found


def test_pixel_shuffle_is_pytorchs():
    q = np.arange(8 * 2 * 3).reshape(8, 2, 3)
    shuffle = PixelShuffle("s", ("input",), grid(2, 5), 2)
    wanted = torch.nn.functional.pixel_shuffle(torch.from_numpy(q)[None], 2)[0].numpy()
    np.testing.assert_array_equal(result(grid(8, 5), shuffle, q=q), wanted)
    part = Part("part", grid(8, 5), (shuffle,))
    assert part.output_size((2, 3)) == (4, 6)
    assert part.receptive_field(3, 6) == (1, 3)


def test_product_by_hand():
    """(13 - 10) · (13 - 10) · 3/4 = 6.75, rounded to 7; (4 - 10)² · 3/4 = 27."""
    product = Multiply("m", ("input", "input"), grid(1), Rescaling.of_ratio(np.array([0.75])))
    np.testing.assert_array_equal(result(grid(1, 10), product, q=np.array([[[13, 4]]])), [[[7, 27]]])


def test_sigmoid_is_its_table():
    table = np.arange(256)[::-1].copy()
    np.testing.assert_array_equal(
        result(grid(1, 7), Sigmoid("g", ("input",), grid(1, 3), table), q=np.array([[[0, 255, 7]]])), [[[255, 0, 248]]]
    )


@pytest.mark.parametrize(
    "operation",
    [
        PixelShuffle("s", ("input",), grid(1, 1), 2),  # another zero point
        PixelShuffle("s", ("input",), grid(1, bits=4), 2),
        PixelShuffle("s", ("input",), grid(2), 2),
        PixelShuffle("s", ("input",), grid(4), 0),
        Multiply("m", ("input",), grid(4), Rescaling.of_ratio(np.ones(4))),
        Multiply("m", ("input", "input"), grid(3), Rescaling.of_ratio(np.ones(3))),
        Sigmoid("g", ("input",), grid(4), np.zeros(255, dtype=np.int64)),
        Sigmoid("g", ("input",), grid(4), np.full(256, 256)),
        Sigmoid("g", ("input",), grid(3), np.zeros(256, dtype=np.int64)),
    ],
)
def test_what_does_not_fit_is_refused(operation):
    with pytest.raises(LoweringError):
        Part("part", grid(4), (operation,))


def test_fixed_point_is_not_multiplied():
    first = Requantize("r", ("input",), Grid.fixed_point(1, 8), Rescaling.of_ratio(np.ones(1)))
    product = Multiply("m", ("r", "r"), grid(1), Rescaling.of_ratio(np.ones(1)))
    with pytest.raises(LoweringError, match="fixed point"):
        Part("part", grid(1), (first, product))
