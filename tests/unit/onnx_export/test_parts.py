"""Parts in ONNX are the exact engine's to the last integer, in integers alone and with float64, however optimized."""

import numpy as np
import pytest

from licquant.errors import ExportError
from licquant.onnx_export import normalization as normalization_
from licquant.onnx_export import numbers, sums
from licquant.program import reference
from licquant.program.arithmetic import INT32_MAX, activation_range
from licquant.program.exact import ExactEngine
from licquant.program.grid import Grid
from licquant.program.ops import (
    Add,
    Convolution,
    Gdn,
    Gdn1,
    Multiply,
    Operation,
    PixelShuffle,
    Requantize,
    Rescaling,
    TransposedConvolution,
)
from licquant.program.part import Part
from tests.onnx_models import LEVELS, model_of, onnx, run, stored, types_of  # first: skips without onnx
from tests.program_strategies import gated_part, random_part

WIDTHS = [(2, 2), (4, 8), (8, 8), (8, 4), (9, 5), (8, 12), (12, 16), (16, 16)]


def inputs_of(part: Part, seed: int, size: tuple[int, int] = (7, 10)) -> np.ndarray:
    """Any stored integers, the lowest and the highest among them."""
    rng, grid = np.random.default_rng(seed), part.input_grid
    low, high = grid.range
    q = rng.integers(low, high + 1, (grid.channels, *size))
    if grid.bits == 32:
        q >>= rng.integers(0, 31, q.shape)
    q[0, 0, :2], q[-1, -1, -2:] = low, high
    return q


def check(part: Part, seed: int = 0, levels: list = LEVELS[-1:], size: tuple[int, int] = (7, 10)) -> None:
    q = inputs_of(part, seed, size)
    wanted = reference.run(part, q)
    for doubles in (False, True):
        model = model_of(part, doubles)
        for level in levels:
            np.testing.assert_array_equal(run(model, level, x=stored(part, q))[0][0], wanted, f"{doubles} {level}")


def lone(op: Operation, grid: Grid) -> Part:
    return Part("lone", grid, (op,))


@pytest.mark.parametrize(("bits", "weight_bits"), WIDTHS)
@pytest.mark.parametrize("make", [random_part, gated_part])
@pytest.mark.parametrize("seed", range(2))
def test_random_parts(make, bits, weight_bits, seed):
    check(make(seed, bits, weight_bits), seed)


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_optimization(level):
    for seed, (bits, weight_bits) in enumerate(WIDTHS):
        check(random_part(seed + 10, bits, weight_bits), seed, [level])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("bits", "weight_bits"), [(8, 8), (12, 10)])
def test_another_runtime_gives_the_same(seed, bits, weight_bits):
    from onnx.reference import ReferenceEvaluator

    for part in (random_part(seed, bits, weight_bits), gated_part(seed, bits, weight_bits)):
        q = inputs_of(part, seed)
        for doubles in (False, True):
            model = model_of(part, doubles)
            onnx.checker.check_model(model, full_check=True)
            (found,) = ReferenceEvaluator(model).run(None, {"x": stored(part, q)})
            np.testing.assert_array_equal(found[0], ExactEngine(part).run(q))


@pytest.mark.parametrize(("bits", "weight_bits"), WIDTHS)
def test_integers_alone(bits, weight_bits):
    for part in (random_part(1, bits, weight_bits), gated_part(1, bits, weight_bits)):
        assert {kind.kind for kind in types_of(model_of(part, doubles=False))} <= {"i", "u", "b"}


def test_the_check_for_integers_can_fail():
    assert "f" in {kind.kind for kind in types_of(model_of(random_part(1, 8, 8), doubles=True))}


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (3, 5), (1, 4)])
@pytest.mark.parametrize(
    ("stride", "padding", "output_padding"), [(1, 0, 0), (2, 0, 1), (2, 2, 1), (3, 1, 0), (4, 2, 3)]
)
@pytest.mark.parametrize("bits", [8, 11])
def test_transposed_convolutions_of_any_shape(kernel, stride, padding, output_padding, bits):
    rng = np.random.default_rng(kernel[0] + 10 * stride)
    grids = [Grid(bits, np.full(n, 0.1), rng.integers(0, 1 << bits, n)) for n in (3, 5)]
    weight = rng.integers(-127, 128, (3, 5, *kernel)).astype(np.int32)
    rescaling = Rescaling.of_ratio(np.full(5, 0.01), -1.0)
    bias = rng.integers(-1000, 1000, 5)
    op = TransposedConvolution("d", ("input",), grids[1], weight, 8, bias, stride, padding, output_padding, rescaling)
    check(lone(op, grids[0]), size=(6, 5))
    even = Grid(bits, np.full(3, 0.1), np.full(3, 5))
    check(lone(op, even), size=(6, 5))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bits", [8, 13, 32])
def test_convolutions_of_groups_and_fixed_point(groups, bits):
    rng = np.random.default_rng(groups)
    grid = Grid.fixed_point(4, 8) if bits == 32 else Grid(bits, np.full(4, 0.1), np.array([0, 3, 7, 200]))
    weight = rng.integers(-127, 128, (8, 4 // groups, 3, 3)).astype(np.int32)
    rescaling = Rescaling.of_ratio(np.full(8, 2.0**-24 if bits == 32 else 0.01), 0.25)
    op = Convolution(
        "c", ("input",), Grid(9, np.ones(8), np.full(8, 256)), weight, 8, np.zeros(8, int), 2, 1, groups, rescaling
    )
    check(lone(op, grid))


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("shift", [1, 20, 30, 46])
@pytest.mark.parametrize("slope", [1, 0, -1, 0.1])
def test_rescaling_at_the_ends_of_its_range(bits, shift, slope):
    """Multipliers of 16 bits, the largest and smallest shifts, all of int32 going in."""
    positive = np.array([65535, 1, 32768, 0])
    rescaling = Rescaling(positive, np.floor(positive * slope).astype(np.int64), np.full(4, shift))
    grid = Grid.fixed_point(4, 8) if bits == 32 else Grid(bits, np.ones(4), np.array([0, 1, 100, (1 << bits) - 1]))
    check(lone(Requantize("r", ("input",), grid, rescaling), Grid.fixed_point(4, 8)), seed=shift, size=(40, 40))


def test_a_knee_that_is_steeper_below_0():
    rescaling = Rescaling(np.array([100, 0]), np.array([200, 65535]), np.array([9, 20]))
    grid = Grid(8, np.ones(2), np.array([128, 128]))
    check(lone(Requantize("r", ("input",), grid, rescaling), Grid(12, np.ones(2), np.array([2048, 77]))), size=(40, 40))


@pytest.mark.parametrize("kind", [Gdn, Gdn1])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("shift", [1, 2, 14, 24, 31, 38, 46])
def test_normalization_at_the_ends_of_its_range(kind, inverse, bits, shift):
    """Norms of up to 35 bits, multipliers of 16, every way that a product or a quotient is computed."""
    rng, channels = np.random.default_rng(shift), 3
    gamma = np.minimum(rng.integers(0, 1 << 15, (channels, channels)), 1 << rng.integers(1, 15, (channels, 1)))
    square = np.array([65535, 40000, 1]), np.array([bits + 15, bits + 18, 1])
    wide, narrow = (
        Grid(b, np.ones(channels), np.array([0, 1 << b - 1, (1 << b) - 1])) for b in (bits, max(bits - 3, 2))
    )
    beta = np.array([0, 1 << 20, (1 << 34) - (1 << 33)])
    op = kind(
        "n", ("input",), narrow, gamma.astype(np.int32), 16, beta, min(bits, 15), *square,
        np.array([65535, 33333, 7]), np.full(channels, shift), inverse,
    )  # fmt: skip
    check(lone(op, wide), seed=shift, size=(30, 30))


def test_a_product_that_float64_holds_only_apart_is_taken_apart():
    """The GDN of the embedded models: 16 bits in, 8 out, products of 54 bits."""
    grid, out = Grid(16, np.ones(2), np.full(2, 1 << 15)), Grid(8, np.ones(2), np.full(2, 128))
    gamma = np.array([[16000, 120], [3, 900]], dtype=np.int32)
    op = Gdn(
        "n", ("input",), out, gamma, 16, np.array([1 << 31, 1 << 30]), 8, np.array([60000, 50000]), np.array([38, 37]),
        np.array([65535, 45001]), np.array([39, 36]), True,
    )  # fmt: skip
    kinds = [node.op_type for node in model_of(lone(op, grid), doubles=True).graph.node]
    assert kinds.count("ConvInteger") == 2
    assert "Where" not in kinds  # which the root in integers needs
    check(lone(op, grid), size=(60, 60))


def test_sums_and_products_in_fixed_point():
    ends = np.full(3, INT32_MAX)
    added = Add("a", ("input", "input"), Grid.fixed_point(3, 4), (np.array([9, 1, 0]), np.array([1, 2, 3])),
                Rescaling(np.array([65535, 3, 1]), np.array([65535, 3, 1]), np.array([16, 1, 1])))  # fmt: skip
    check(lone(added, Grid.fixed_point(3, 4)))
    assert activation_range(32)[1] == ends[0]
    wide = Grid(16, np.ones(3), np.array([0, 9, 65535]))
    scaled = Rescaling(np.array([65535, 3, 1]), np.array([65535, 3, 1]), np.array([40, 20, 16]))
    check(lone(Multiply("m", ("input", "input"), wide, scaled), wide))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_pixel_shuffles(bits):
    narrow = Grid.fixed_point(2, 8) if bits == 32 else Grid(bits, np.ones(2), np.array([3, 7]))
    wide = Grid(bits, narrow.scale.repeat(9), narrow.zero_point.repeat(9))
    check(lone(PixelShuffle("s", ("input",), narrow, 3), wide))


@pytest.mark.parametrize("products", [sums.MAX_PRODUCTS, sums.MAX_PRODUCTS + 1])
def test_sums_that_int32_may_not_hold_are_refused(products):
    """The largest sum of all, and one product more."""
    grids = [Grid(8, np.ones(n), np.zeros(n, dtype=np.int64)) for n in (products, 1)]
    weight = np.full((1, products, 1, 1), 127, dtype=np.int32)
    rescaling = Rescaling.of_ratio(np.full(1, 2.0**-23))
    part = lone(Convolution("c", ("input",), grids[1], weight, 8, np.zeros(1, np.int64), 1, 0, 1, rescaling), grids[0])
    if products > sums.MAX_PRODUCTS:
        with pytest.raises(ExportError, match="c: sums of 33026 products do not fit ConvInteger: at most 33025 do"):
            model_of(part, doubles=False)
        return
    x = np.full((products, 1, 1), 255)
    assert run(model_of(part, doubles=False), x=stored(part, x))[0] == ExactEngine(part).run(x)[None]


# --- where float64 would be wrong by one: found by factoring the products that lie just below a half


def one(bits: int, zero_point: int) -> Grid:
    return Grid(bits, np.ones(1), np.array([zero_point]))


def normalization(out: Grid, beta: int, multiplier: int, shift: int, inverse: bool) -> Part:
    """Of one channel and no gamma, so that the root is that of beta."""
    vectors = (np.array([n]) for n in (1, 46, multiplier, shift))
    no_gamma = np.zeros((1, 1), dtype=np.int32)
    return lone(Gdn("n", ("input",), out, no_gamma, 8, np.array([beta]), 8, *vectors, inverse), one(16, 1 << 15))


TOO_LONG = {
    # 18867 · 1864863099 = 2^45 + 1
    "rescaling": (
        lone(
            Requantize("r", ("input",), one(8, 255), Rescaling(*(np.array([n]) for n in (18867, 18867, 46)))),
            Grid.fixed_point(1, 8),
        ),
        -1864863099,
        254,
    ),
    # 22821 · 11822029 · 36255 = 69 · 2^47 + 2^46 - 1
    "product": (normalization(one(8, 0), 2132574001, 36255, 39, inverse=True), (1 << 15) + 22821, 69),
    # 16840 · 64716 · 2^24 + 21285731 = 2 · 21285731 · 429492006 - 1
    "quotient": (
        normalization(Grid.fixed_point(1, 0), 6913487919, 64716, 1, inverse=False),
        (1 << 15) + 16840,
        429492005,
    ),
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_what_float64_would_round_is_computed_otherwise(name):
    part, x, wanted = TOO_LONG[name]
    q = np.full((1, 1, 1), x)
    assert reference.run(part, q) == wanted
    for doubles in (False, True):
        assert run(model_of(part, doubles), x=stored(part, q))[0] == wanted


@pytest.mark.parametrize("name", TOO_LONG)
def test_the_proofs_are_needed(name, monkeypatch):
    """Without them these are wrong."""
    part, x, wanted = TOO_LONG[name]
    monkeypatch.setattr(numbers, "_fits_rescaling", lambda *_: True)
    monkeypatch.setattr(normalization_, "_fits", lambda *_: True)
    monkeypatch.setattr(normalization_, "_fits_whole", lambda *_: True)
    assert run(model_of(part, doubles=True), x=stored(part, np.full((1, 1, 1), x)))[0] == wanted + 1
