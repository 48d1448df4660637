"""The pieces of a context model: orders of positions, layers at a few positions, a convolution at chosen ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licquant.codec.latents.masked import MaskedConvolution, Plane
from licquant.codec.latents.orders import Checkerboard, Diagonals
from licquant.codec.latents.pointwise import PointwiseLayers, SplitLayers, chain
from licquant.codec.latents.spatial import SpatialContext
from licquant.errors import ArtifactError
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import Add, Convolution, Requantize, Rescaling
from licquant.program.part import INPUT, Part
from tests.latent_programs import LATENT, Maker, causal_mask, checkerboard_mask, joined
from tests.program_strategies import random_grid, random_rescaling

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (8, 5), (6, 12)]


def taps_of(mask):
    return np.argwhere(mask) - len(mask) // 2


# --- orders -------------------------------------------------------------------------------------------------


def when_coded(passes, height, width):
    """The number of the pass of every position; each position in exactly one."""
    when = np.full(height * width, -1)
    for number, one in enumerate(passes):
        assert (when[one.positions] == -1).all()
        when[one.positions] = number
    assert (when >= 0).all()
    return when.reshape(height, width)


def lags(when, taps):
    """How many passes earlier each tap of each position was coded, where it lies in the plane."""
    height, width = when.shape
    for index, (down, right) in enumerate(taps):
        for row in range(max(0, -down), min(height, height - down)):
            for column in range(max(0, -right), min(width, width - right)):
                yield index, when[row, column] - when[row + down, column + right]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "step"), [(3, 2), (5, 3), (7, 4)])
def test_diagonals_come_after_all_their_taps(kernel, step, size):
    order = Diagonals(taps_of(causal_mask(kernel)))
    assert order.step == step
    when = when_coded(order.passes(*size), *size)
    assert when.max() + 1 == size[1] + step * (size[0] - 1)
    assert all(lag == order.lags[index] for index, lag in lags(when, taps_of(causal_mask(kernel))))


def test_the_diagonals_are_as_few_as_they_can_be():
    order = Diagonals(taps_of(causal_mask()))
    assert sorted(order.lags) == [1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 8]
    assert len(order.passes(32, 48)) == 48 + 3 * 31


@pytest.mark.parametrize("taps", [[(0, -1)], [(-1, 0)], [(-1, -1), (-2, -2)], [(0, -2), (-2, 2)]])
def test_other_masks_have_their_own_step(taps):
    order = Diagonals(np.array(taps))
    assert (order.lags >= 1).all()
    when = when_coded(order.passes(5, 6), 5, 6)
    assert all(lag >= 1 for _, lag in lags(when, taps))


@pytest.mark.parametrize("tap", [(0, 0), (0, 1), (1, -2)])
def test_diagonals_refuse_what_is_not_decoded_yet(tap):
    with pytest.raises(ArtifactError, match="not decoded yet"):
        Diagonals(np.array([(0, -1), tap]))


@pytest.mark.parametrize("size", SIZES)
def test_checkerboard_has_two_halves(size):
    taps = taps_of(checkerboard_mask())
    passes = Checkerboard(taps).passes(*size)
    assert [one.has_context for one in passes] == [False, True]
    when = when_coded(passes, *size)
    assert when[0, 0] == 0
    assert all(abs(lag) == 1 for _, lag in lags(when, taps))
    with pytest.raises(ArtifactError, match="not decoded yet"):
        Checkerboard(np.array([(0, 1), (1, 1)]))


# --- pointwise layers ---------------------------------------------------------------------------------------


def random_layers(seed, bits, weight_bits, inputs=7, channels=5):
    """Change of grid, 1×1 convolution, change of grid, 1×1 convolution to fixed point."""
    rng = np.random.default_rng(seed)
    high = (1 << (weight_bits - 1)) - 1

    def convolution(name, source, grid, count):
        weight = rng.integers(-high, high + 1, (grid.channels, count, 1, 1)).astype(np.int32)
        bias = rng.integers(-(high << bits), (high << bits) + 1, grid.channels)
        rescaling = random_rescaling(rng, grid.channels, 1 / high if grid.bits < 32 else 0.3)
        return Convolution(name, (source,), grid, weight, weight_bits, bias, 1, 0, 1, rescaling)

    def change(name, source, count):
        return Requantize(name, (source,), random_grid(rng, count, bits), random_rescaling(rng, count, 0.9))

    first = change("r", INPUT, inputs)
    second = convolution("a", "r", random_grid(rng, channels, bits), inputs)
    third = change("s", "a", channels)
    fourth = convolution("b", "s", Grid.fixed_point(channels, 8), channels)
    return Part("layers", random_grid(rng, inputs, bits), (first, second, third, fourth))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 16), st.integers(2, 16), st.integers(1, 6), st.integers(1, 9))
def test_pointwise_layers_equal_the_exact_engine(seed, bits, weight_bits, split, count):
    part = random_layers(seed, bits, weight_bits)
    q = np.random.default_rng(seed).integers(0, 1 << bits, (7, count))
    expected = ExactEngine(part).run(q[:, None])[:, 0]
    centred = (q - part.input_grid.zero_point[:, None]).astype(np.float64)
    operations, grid = chain(part), part.input_grid
    np.testing.assert_array_equal(PointwiseLayers(operations, grid)(centred), expected)
    layers = SplitLayers(operations, grid)
    shares = [layers.share(part)(centred[part]) for part in (slice(0, split), slice(split, 7))]
    np.testing.assert_array_equal(layers.finish(shares[0] + shares[1]), expected)


@pytest.mark.parametrize("magnitude", [127, 32767])
def test_shares_are_exact_at_their_largest(magnitude):
    """Every product at its extreme and of one sign: each share stays within float32, their sum does not."""
    count, grid = 2000, Grid(16, np.ones(2000), np.zeros(2000, dtype=np.int64))
    weight = np.full((1, count, 1, 1), magnitude, dtype=np.int32)
    one = Rescaling(np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64), np.ones(1, dtype=np.int64))
    out = Grid.fixed_point(1, 0)
    op = Convolution("a", (INPUT,), out, weight, 16, np.zeros(1, dtype=np.int64), 1, 0, 1, one)
    layers = SplitLayers([op], grid)
    x = np.full((count, 1), 129.0 if magnitude == 127 else 65535.0)
    x[0] -= 1  # an odd sum, which a float32 beyond 2^24 cannot hold
    total = layers.share(slice(0, 1000))(x[:1000]) + layers.share(slice(1000, count))(x[1000:])
    assert int(total[0, 0]) == magnitude * int(x.sum())


def test_any_knee_is_kept():
    """One that no activation function has, but a file may: steeper below 0 than above."""
    grid, out = Grid(8, np.ones(1), np.full(1, 100)), Grid.fixed_point(1, 0)
    knee = Rescaling(*(np.array([m]) for m in (3, 5, 1)))
    part = Part("x", grid, (Requantize("r", (INPUT,), out, knee),))
    q = np.arange(256)[None]
    expected = ExactEngine(part).run(q[:, None])[:, 0]
    np.testing.assert_array_equal(PointwiseLayers(part.operations, grid)(q - 100.0), expected)


def test_layers_that_look_further_are_refused():
    part = random_layers(0, 8, 8)
    first, second, *_ = part.operations
    wide = replace(second, inputs=(INPUT,), padding=1)
    add = Add("x", (INPUT, INPUT), part.input_grid, (np.ones(7, dtype=np.int64),) * 2, first.rescaling)
    for operations in ([wide], [first, replace(second, groups=7)], [add]):
        with pytest.raises(ArtifactError, match="one position at a time"):
            PointwiseLayers(operations, part.input_grid)
        with pytest.raises(ArtifactError, match="one position at a time"):
            SplitLayers(operations, part.input_grid)
    with pytest.raises(ArtifactError, match="one position at a time"):
        SplitLayers([first], part.input_grid)
    with pytest.raises(ArtifactError, match="chain"):
        chain(Part("x", part.input_grid, (first, replace(first, name="other"))))


# --- masked convolutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [causal_mask(3), causal_mask(5), checkerboard_mask(5), causal_mask(5) * 0])
@pytest.mark.parametrize("bits", [8, 14])
def test_a_plane_gives_the_convolution_of_the_whole(mask, size, bits):
    part = Maker(1, bits).masked("context", 5, mask)
    convolution = MaskedConvolution(part)
    latent = np.random.default_rng(0).integers(-3000, 3000, (5, *size))
    plane, every = Plane(convolution, *size), np.arange(size[0] * size[1])
    plane.put(every, latent.reshape(5, -1))
    taps = np.array_split(np.arange(len(convolution.taps)), 2)
    acc = sum(convolution.share(chosen)(plane.neighbours(every, chosen)) for chosen in taps if chosen.size)
    whole = ExactEngine(part).run(latent) - part.output_grid.zero_point[:, None, None]
    np.testing.assert_array_equal(convolution.finish(acc), whole.reshape(10, -1))


def test_a_convolution_that_reads_fixed_point_keeps_all_its_bits():
    weight = np.ones((1, 1, 3, 3), dtype=np.int32) * causal_mask(3)
    one = Rescaling(np.ones(1, dtype=np.int64) * 2, np.ones(1, dtype=np.int64) * 2, np.ones(1, dtype=np.int64))
    out = Grid.fixed_point(1, LATENT)
    op = Convolution("a", (INPUT,), out, weight.astype(np.int32), 2, np.zeros(1, dtype=np.int64), 1, 1, 1, one)
    convolution = MaskedConvolution(Part("context", out, (op,)))
    plane = Plane(convolution, 1, 2)
    plane.put(np.array([0]), np.array([[(1 << 30) + 1]]))
    every = np.arange(4)
    neighbours = plane.neighbours(np.array([1]), every)
    assert int(convolution.finish(convolution.share(every)(neighbours))[0, 0]) == (1 << 30) + 1


# --- a context in the plane ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (9, 2)])
@pytest.mark.parametrize(("order", "mask"), [(Diagonals, causal_mask()), (Checkerboard, checkerboard_mask())])
@pytest.mark.parametrize("kernel", [3, 5])
def test_passes_read_nothing_that_is_not_decoded_yet(order, mask, kernel, size):
    """On planes of any shape, narrower than the diagonals' step too; ŷ is arbitrary."""
    make = Maker(3)
    mask = mask[(5 - kernel) // 2 :][:kernel, (5 - kernel) // 2 :][:, :kernel]
    part, grid = make.masked("context", 4, mask), make.grid(3)
    known = Part("h_s", grid, (Requantize("k", (INPUT,), grid, Rescaling.of_ratio(np.ones(3))),))
    parameters = make.pointwise("parameters", joined(known, part), (9, 8))
    context = SpatialContext(part, parameters, [grid], context_first=False, order=order)
    rng = np.random.default_rng(0)
    side = rng.integers(0, 256, (3, *size))
    found = np.full((8, size[0] * size[1]), -(2**40))

    def code(channels, positions, sigma, mean):
        assert (found[:, positions] == -(2**40)).all(), "a position is coded twice"
        found[:, positions] = np.concatenate([sigma, mean])
        return rng.integers(-2000, 2000, (4, len(positions)))

    y_hat = context.code_passes(side, slice(0, 4), code)
    seen = ExactEngine(part).run(y_hat)
    if order is Checkerboard:
        anchor = np.indices(size).sum(axis=0) % 2 == 0
        seen = np.where(anchor, part.output_grid.zero_point[:, None, None], seen)
    whole = ExactEngine(parameters).run(np.concatenate([side, seen]))
    np.testing.assert_array_equal(found, whole.reshape(8, -1))
