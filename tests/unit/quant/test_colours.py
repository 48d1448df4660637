"""Copies of photographs in strong colours: what a pixel becomes, and of how many images there is one."""

import numpy as np
import pytest

from licquant.quant.colours import EVERY, coloured_copies, strongly_coloured


def pixel(*values: int) -> np.ndarray:
    return np.array(values, np.uint8).reshape(1, 1, 3)


def test_a_pixel_by_hand():
    # Grey 100; 20 below, none, 20 above it become 50 below and above; the first order exchanges the last two channels.
    assert strongly_coloured(pixel(80, 100, 120), 0).ravel().tolist() == [50, 150, 100]


def test_beyond_the_ends_it_is_clipped():
    assert sorted(strongly_coloured(pixel(10, 100, 250), 0).ravel().tolist()) == [0, 70, 255]


def test_grey_stays_grey():
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert all(np.array_equal(strongly_coloured(grey, number), grey) for number in range(5))


def test_five_orders_and_then_the_first_again():
    seen = [strongly_coloured(pixel(80, 100, 120), number).ravel().tolist() for number in range(6)]
    assert len({tuple(values) for values in seen}) == 5
    assert seen[5] == seen[0]
    assert [50, 100, 150] not in seen


@pytest.mark.parametrize(("there", "copies"), [(0, 0), (1, 1), (EVERY, 1), (EVERY + 1, 2), (64, -(-64 // EVERY))])
def test_one_of_every_so_many(there, copies):
    assert len(coloured_copies([np.zeros((64, 64, 3), np.uint8)] * there)) == copies


def test_the_originals_stay():
    image = np.full((64, 64, 3), (10, 20, 200), np.uint8)
    before = image.copy()
    (copy,) = coloured_copies([image])
    assert np.array_equal(image, before)
    assert (copy.shape, copy.dtype) == (image.shape, np.uint8)
    assert copy.flags.c_contiguous
