"""Every way to choose widths and to fit, on the deeper families: what comes out is a codec that decodes exactly."""

import numpy as np
import pytest

from licquant import pipeline
from licquant.codec.codec import Codec
from licquant.codec.files.artifact import Artifact
from licquant.config import Budget
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_model

NAMES = ["mbt2018-mean", "mbt2018", "cheng2020-anchor", pytest.param("elic2022-official", marks=pytest.mark.long)]
LMBDA = 0.01
# method → its budget and what its plan must show
METHODS = {"fmpq": Budget("bits", 5.0), "optimal": Budget("bits", 5.0)}


@pytest.fixture(scope="module", params=NAMES)
def prepared(request, tmp_path_factory):
    """A model, images, and a folder where its table is measured once for all methods."""
    return small_model(request.param), dead_leaves(2, 64), tmp_path_factory.mktemp("tables")


def decodes_exactly(artifact: Artifact) -> bool:
    codec = Codec(Artifact.from_bytes(artifact.to_bytes()), bytes(8), "exact")
    image = dead_leaves(1, 96, seed=5)[0]
    latents, decoded = codec.analyse(image), codec.decode_symbols(codec.encode(image))
    return np.array_equal(latents.y, decoded.y) and np.array_equal(latents.z, decoded.z)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_find_a_plan_within_the_budget(prepared, method):
    model, images, folder = prepared
    settings = pipeline.Settings(lmbda=LMBDA, max_bits=6, cache=folder)
    result = pipeline.quantize(model, images, method, METHODS[method], settings)
    weights = {
        name: layer.weight.numel() for part in result.quantized.parts.values() for name, layer in part.layers.items()
    }
    total = sum(weights.values())
    average = sum(weights[name] * (bits.weight or 0) for name, bits in result.plan.items() if name in weights) / total
    assert len({bits.weight for _, bits in result.plan.items() if bits.weight}) > 1, "nothing was chosen"
    assert average <= METHODS[method].value + 0.35  # masked weights, counted here, cost nothing
    assert result.sensitivity is not None
    assert decodes_exactly(result.artifact)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["uniform", "rdo-ptq"])
def test_what_is_fitted_decodes_exactly(prepared, method):
    model, images, _ = prepared
    settings = pipeline.Settings(lmbda=LMBDA, reconstruction_steps=8)
    fitted = pipeline.quantize(model, images, method, Budget("bits", 5), settings).artifact
    rounded = pipeline.quantize(model, images, "uniform", Budget("bits", 5)).artifact
    assert fitted.to_bytes() != rounded.to_bytes(), "nothing was learned"
    assert decodes_exactly(fitted)
