"""GDN of the first kind: both exact engines, the file, every way to choose widths."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch

from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget
from licquant.errors import ModelError
from licquant.evaluate.metrics import mse
from licquant.models.trace import trace_model
from licquant.program import reference
from licquant.program.exact import ExactEngine
from licquant.program.ops import Gdn, Gdn1
from licquant.program.part import Part
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import first_kind
from tests.program_strategies import random_part


def with_first_kind(part: Part) -> Part:
    """The random part with each GDN replaced by one of the first kind."""
    operations = [Gdn1(**vars(op)) if type(op) is Gdn else op for op in part.operations]
    return Part(part.name, part.input_grid, tuple(operations))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("bits", "weight_bits"), [(2, 2), (8, 8), (16, 8), (9, 12)])
def test_exact_engine_equals_the_reference(seed, bits, weight_bits):
    part = with_first_kind(random_part(seed, bits, weight_bits))
    low, high = part.input_grid.range
    q = np.random.default_rng(seed).integers(low, high + 1, (part.input_grid.channels, 11, 9))
    np.testing.assert_array_equal(ExactEngine(part).run(q), reference.run(part, q))


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_both_ends_against_whole_numbers(seed, bits):
    part = with_first_kind(random_part(seed, bits, 8))
    rng = np.random.default_rng(seed)
    for op in (op for op in part.operations if isinstance(op, Gdn1)):
        op = replace(op, shift=rng.integers(1, 47, op.shift.shape))
        limit = 1 << bits
        q = rng.integers(-limit + 1, limit, (len(op.gamma), 4, 5))
        norm = rng.integers(0, 1 << int(rng.integers(1, 36)), q.shape)
        norm[0, 0, 0] = (1 << 35) - 1
        u, output = reference.gdn_squares(op, q), reference.gdn_output(op, q, norm)
        low, high = op.grid.range
        for (c, i, j), value in np.ndenumerate(q):
            x, n = int(value), max(int(norm[c, i, j]), 1)
            magnitude = half_up(Fraction(abs(x) * int(op.square_multiplier[c]), 1 << int(op.square_shift[c])))
            assert u[c, i, j] == min(magnitude, (1 << op.square_bits) - 1)
            scaled = Fraction(x * int(op.multiplier[c]), 1 << int(op.shift[c]))
            y = half_up(scaled * n / 2**10 if op.inverse else scaled * 2**24 / n)
            assert output[c, i, j] == min(max(y + int(op.grid.zero_point[c]), low), high)


def decoded(artifact: Artifact, image: np.ndarray, engine: str = "exact") -> np.ndarray:
    codec = Codec(Artifact.from_bytes(artifact.to_bytes()), bytes(8), engine)
    data = codec.encode(image)
    if engine == "exact":
        assert np.array_equal(codec.analyse(image).y, codec.decode_symbols(data).y)
    return codec.decode(data)


def float_picture(model, image: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None] / 255
    with torch.no_grad():
        x_hat = model.g_s(torch.round(model.g_a(x)))
    return (x_hat[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def test_the_file_decodes_to_the_float_models_picture():
    model, image = first_kind(), dead_leaves(1, 128, seed=5)[0]
    wanted = float_picture(model, image)
    assert wanted.std() > 1, "the model paints nothing"
    for engine in ("exact", "openvino"):
        artifact = pipeline.quantize(model, dead_leaves(3, 128), budget=Budget("bits", 8)).artifact
        error = 255**2 * mse(decoded(artifact, image, engine), wanted)
        assert error < 0.05 * wanted.astype(float).var(), engine


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fmpq", "optimal", "hessian", "rdo-ptq", "raq"])
def test_every_method(method):
    settings = pipeline.Settings(lmbda=0.01, max_bits=8, reconstruction_steps=4)
    budget = Budget("bits", 8 if method == "raq" else 5)  # raq has weights of 8 bits, whatever else
    artifact = pipeline.quantize(first_kind(), dead_leaves(2, 64), method, budget, settings).artifact
    decoded(artifact, dead_leaves(1, 96, seed=5)[0])


def test_a_normalization_of_ones_own_is_not_taken_for_one():
    model = first_kind()

    class Third(type(model.g_a[1])):
        def forward(self, x):
            return super().forward(x) + 1

    model.g_a[1] = Third(8)
    with pytest.raises(ModelError, match=r"g_a\.1: layers of type Third"):
        trace_model(model)
