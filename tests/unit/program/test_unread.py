"""Channels that nothing reads are left out, and nothing else of a part changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licquant.program import reference
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.openvino_engine import OpenVinoEngine
from licquant.program.ops import Convolution, Gdn, Operation, TransposedConvolution
from licquant.program.part import INPUT, Part
from licquant.program.unread import without_unread
from tests.program_strategies import random_grid, random_part, random_rescaling

CHANNELS = 9


def layer(rng: np.random.Generator, name: str, read: str, inputs: int, transposed: bool) -> Operation:
    shape = (inputs, CHANNELS, 3, 3) if transposed else (CHANNELS, inputs, 3, 3)
    weight, bias = rng.integers(-127, 128, shape, np.int32), rng.integers(-999, 999, CHANNELS)
    grid, rescaling = random_grid(rng, CHANNELS, 8), random_rescaling(rng, CHANNELS, 0.01)
    if transposed:
        return TransposedConvolution(name, (read,), grid, weight, 8, bias, 2, 1, 1, rescaling)
    return Convolution(name, (read,), grid, weight, 8, bias, 1, 1, 1, rescaling)


def with_unread(op: Operation, channels: np.ndarray) -> Operation:
    """The layer with weights of zero for these input channels."""
    weight = op.weight.copy()
    weight[(slice(None), channels) if isinstance(op, Convolution) else channels] = 0
    return replace(op, weight=weight)


def chain(seed: int, unread: np.ndarray, last_unread: np.ndarray) -> Part:
    """Three layers, the second and third of which read less than there is."""
    rng = np.random.default_rng(seed)
    first = layer(rng, "a", INPUT, 4, False)
    second = with_unread(layer(rng, "b", "a", CHANNELS, seed % 2 == 0), unread)
    third = with_unread(layer(rng, "c", "b", CHANNELS, seed % 3 == 0), last_unread)
    return Part("part", random_grid(rng, 4, 8), (first, second, third))


def sample(part: Part, seed: int) -> np.ndarray:
    low, high = part.input_grid.range
    return np.random.default_rng(seed).integers(low, high + 1, (part.input_grid.channels, 5, 6))


masks = st.lists(st.booleans(), min_size=CHANNELS, max_size=CHANNELS).map(np.array)


@given(seed=st.integers(0, 99), unread=masks, last_unread=masks)
def test_what_is_left_gives_the_same(seed: int, unread: np.ndarray, last_unread: np.ndarray) -> None:
    part = chain(seed, unread, last_unread)
    less = without_unread(part)
    sizes = [max(CHANNELS - int(mask.sum()), 1) for mask in (unread, last_unread)]
    assert [op.bias.size for op in less.operations] == [*sizes, CHANNELS]
    assert less.output_grid.same(part.output_grid)
    q = sample(part, seed)
    np.testing.assert_array_equal(reference.run(less, q), reference.run(part, q))
    np.testing.assert_array_equal(ExactEngine(part).run(q), reference.run(part, q))


def test_what_a_dropped_channel_alone_has_read_goes_too() -> None:
    rng = np.random.default_rng(0)
    second = layer(rng, "b", "a", CHANNELS, False)
    weight = second.weight.copy()
    weight[1:, 5] = 0  # channel 5 of a is read by channel 0 of b alone
    second = replace(second, weight=weight)
    third = with_unread(layer(rng, "c", "b", CHANNELS, False), np.arange(CHANNELS) == 0)
    part = Part("part", random_grid(rng, 4, 8), (layer(rng, "a", INPUT, 4, False), second, third))
    assert [op.bias.size for op in without_unread(part).operations] == [CHANNELS - 1, CHANNELS - 1, CHANNELS]


def test_what_two_layers_read_stays_where_one_reads_it() -> None:
    rng = np.random.default_rng(0)
    first = layer(rng, "a", INPUT, 4, False)
    left, right = (
        with_unread(layer(rng, name, "a", CHANNELS, False), np.arange(CHANNELS) < unread)
        for name, unread in (("b", 4), ("c", 2))
    )
    joined = with_unread(layer(rng, "d", "b", CHANNELS, False), np.arange(CHANNELS) < 0)
    part = Part("part", random_grid(rng, 4, 8), (first, left, replace(right, inputs=("a",)), joined))
    less = without_unread(part)
    assert less.operations[0].bias.size == CHANNELS - 2
    q = sample(part, 1)
    np.testing.assert_array_equal(reference.run(less, q), reference.run(part, q))


@pytest.mark.parametrize("seed", range(8))
def test_other_operations_keep_all_channels(seed: int) -> None:
    part = random_part(seed, 8, 8)
    less = without_unread(part)
    for op, left in zip(part.operations, less.operations, strict=True):
        if isinstance(op, Gdn):
            assert left.grid.channels == op.grid.channels
    q = sample(part, seed)
    np.testing.assert_array_equal(reference.run(less, q), reference.run(part, q))


@pytest.mark.parametrize("left", [1, 2, 5])
def test_openvino_runs_few_channels_as_it_runs_all(left: int) -> None:
    part = chain(5, np.arange(CHANNELS) >= left, np.arange(CHANNELS) >= left)
    q = sample(part, 2)
    assert abs(OpenVinoEngine(part, 1).run(q).astype(int) - reference.run(part, q)).max() <= 1


def test_a_grouped_layer_reads_all() -> None:
    rng = np.random.default_rng(0)
    grouped = Convolution(
        *("b", ("a",), Grid(8, np.ones(CHANNELS), np.zeros(CHANNELS, np.int64))),
        *(np.zeros((CHANNELS, 1, 3, 3), np.int32), 8, np.zeros(CHANNELS, np.int64), 1, 1, CHANNELS),
        random_rescaling(rng, CHANNELS, 0.01),
    )
    part = Part("part", random_grid(rng, 4, 8), (layer(rng, "a", INPUT, 4, False), grouped))
    assert without_unread(part).operations[0].bias.size == CHANNELS
