"""What widths cost: hand-computed, and against real files."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from licquant.allocate.costs import Costs, bops_cost, file_bytes_cost, latency_cost, weight_bits_cost
from licquant.codec.files.artifact import Artifact
from licquant.config import LayerBits, Plan
from licquant.errors import DataError, ModelError, PlanError
from licquant.evaluate import latency
from licquant.evaluate.bops import bops_per_pixel, macs_per_pixel
from licquant.evaluate.latency import EXACT, NARROW, OPENVINO, WIDE, LatencyTable, LayerTimes
from licquant.lower import lower_model
from licquant.lower.artifact import latent_tables
from licquant.models import load_model
from licquant.models.geometry import geometry_hash
from licquant.models.trace import TracedModel, trace_model
from licquant.quant.calibrate import Statistics, collect_statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.network import QuantizedModel, layer_names, uniform_plan
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import hand_made, small_hyperprior

CHECKPOINT = Path(__file__).parents[4] / "shared/checkpoints/bmshj2018-hyperprior-lambda0.0130.pt"
BYTES_TOLERANCE = 0.01
OTHER_ACTIVATIONS = 0.03  # widths of activations that sizes were not measured with


def to_artifact(quantized: QuantizedModel) -> Artifact:
    traced = quantized.traced
    return Artifact(traced.family, lower_model(quantized), latent_tables(traced), quantized.plan)


@cache
def small() -> tuple[TracedModel, Statistics]:
    traced = trace_model(small_hyperprior(24, 36))
    return traced, collect_statistics(traced, dead_leaves(2, 128))


def random_plan(traced: TracedModel, seed: int, activations: tuple[int, int] = (4, 10)) -> Plan:
    rng = np.random.default_rng(seed)
    low, high = activations
    uniform = uniform_plan(traced, 8, 8)
    return Plan(
        {
            name: LayerBits(bits.weight and int(rng.integers(2, 9)), int(rng.integers(low, high + 1)))
            for name, bits in uniform.items()
        }
    )


def check_bytes(traced: TracedModel, statistics: Statistics, costs: Costs, seeds: range) -> None:
    for activations, tolerance in (((8, 8), BYTES_TOLERANCE), ((4, 10), OTHER_ACTIVATIONS)):
        for seed in seeds:
            plan = random_plan(traced, seed, activations)
            real = len(to_artifact(insert_quantizers(traced, plan, statistics)).to_bytes())
            assert costs.total(plan) == pytest.approx(real, rel=tolerance)


@pytest.mark.slow
def test_predicted_bytes_are_the_files():
    traced, statistics = small()
    costs = file_bytes_cost(traced, statistics, to_artifact, widths=range(2, 9))
    assert costs.unit == "bytes"
    check_bytes(traced, statistics, costs, range(6))
    # Uniform at the width of the measurement there is nothing to predict: the very file.
    for width in (2, 5, 8):
        plan = uniform_plan(traced, width, 8)
        real = len(to_artifact(insert_quantizers(traced, plan, statistics)).to_bytes())
        assert costs.total(plan) == pytest.approx(real, abs=64)  # digits of the numbers in the header


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not CHECKPOINT.exists(), reason="the shared checkpoint is not here")
def test_predicted_bytes_of_a_trained_model():
    traced = trace_model(load_model("bmshj2018-hyperprior", CHECKPOINT))
    statistics = collect_statistics(traced, dead_leaves(2, 256))
    check_bytes(traced, statistics, file_bytes_cost(traced, statistics, to_artifact, widths=range(2, 9)), range(3))


def test_widths_that_were_not_measured_have_no_cost():
    traced, statistics = small()
    costs = file_bytes_cost(traced, statistics, to_artifact, widths=[8])
    with pytest.raises(PlanError, match=r"g_a\.0 with 7-bit"):
        costs.of("g_a.0", 7, 8)
    for bits in ((1, 8), (8, 17), (0, 0)):
        with pytest.raises(PlanError, match="no cost"):
            weight_bits_cost(traced).of("g_a.0", *bits)
    with pytest.raises(PlanError, match="layer nothing"):
        costs.of("nothing", 8, 8)


@pytest.mark.parametrize("make", [small_hyperprior, hand_made])
def test_bits_and_bops_of_plans(make):
    traced = trace_model(make())
    bits, bops = weight_bits_cost(traced), bops_cost(traced)
    assert bits.layers == bops.layers == layer_names(traced)
    for width in (2, 8, 16):
        assert bits.total(uniform_plan(traced, width, 8)) == pytest.approx(width)
    plan = random_plan(traced, 0)
    program = lower_model(insert_quantizers(traced, plan, collect_statistics(traced, dead_leaves(1, 64))))
    assert bops.total(plan) == pytest.approx(bops_per_pixel(macs_per_pixel(program), plan))
    # One layer alone: its share of the weights for every bit more.
    first = {**plan.layers, "g_a.0": LayerBits(2, 8)}, {**plan.layers, "g_a.0": LayerBits(3, 8)}
    share = bits.total(Plan(first[1])) - bits.total(Plan(first[0]))
    weights = [module.weight.numel() for module in traced.model.modules() if "Conv" in type(module).__name__]
    gammas = [module.gamma.numel() for module in traced.model.modules() if type(module).__name__ == "GDN"]
    assert share == pytest.approx(traced.model.g_a[0].weight.numel() / sum(weights + gammas))


def test_a_plan_must_cover_the_layers():
    traced = trace_model(small_hyperprior())
    with pytest.raises(PlanError, match="lacks"):
        bops_cost(traced).total(Plan({"g_a.0": LayerBits(8, 8)}))


def table_for(traced: TracedModel, **changes) -> LatencyTable:
    classes = {(NARROW, NARROW): 1.0, (WIDE, NARROW): 3.0, (NARROW, WIDE): 4.0, (WIDE, WIDE): 5.0}
    layers = {
        name: LayerTimes(EXACT, 2, {(8, 8): 1.0, (10, 10): 2.0})
        if name.startswith("h_s")
        else LayerTimes(OPENVINO, 1, classes)
        for name in layer_names(traced)
    }
    values = {
        "layers": layers,
        "rest_ms": 7.0,
        "size": (768, 512),
        "threads": 2,
        "geometry": geometry_hash(traced),
        "machine": latency.machine(),
    }
    return LatencyTable(**{**values, **changes})


def test_latency_follows_the_classes():
    traced = trace_model(small_hyperprior())
    costs = latency_cost(traced, table_for(traced))
    assert [costs.of("g_a.2", w, a) for w, a in ((2, 8), (8, 8), (9, 8), (8, 9), (16, 16))] == [1, 1, 3, 4, 5]
    assert [costs.of("h_s.0", w, a) for w, a in ((4, 4), (8, 8), (9, 8), (4, 16), (16, 16))] == [2, 2, 4, 4, 4]
    # No more bits in all than two bytes, but not bytes: INT8 kernels do not do them.
    assert [costs.of("h_s.0", w, a) for w, a in ((7, 9), (4, 9), (9, 2))] == [4, 4, 4]
    plan = uniform_plan(traced, 8, 8)
    assert costs.constant == 7
    assert costs.total(plan) == 7 + 17 + 3 * 2


def test_latency_tables_of_others_are_refused():
    traced = trace_model(small_hyperprior())
    with pytest.raises(ModelError, match="another model"):
        latency_cost(trace_model(small_hyperprior(8, 16)), table_for(traced))
    elsewhere = {**latency.machine(), "cpu": "abacus"}
    with pytest.raises(DataError, match=r"another machine.*abacus"):
        latency_cost(traced, table_for(traced, machine=elsewhere))


def test_widths_that_cost_what_a_wider_one_does_are_left_out():
    table = np.full((15, 15), np.nan)
    table[:7, :] = 1.0  # weights up to 8 bits; activations of 9 bits and more take twice as long
    table[7:, :] = 3.0
    table[:, 7:] *= 2
    found = Costs("ms", {"a": table, "free": np.zeros((15, 15))}).distinct(range(2, 11), range(2, 13))
    assert found == {"a": ((8, 10), (8, 12)), "free": ((10,), (12,))}
    table[0, 2] = 0.5  # 2-bit weights with 4-bit activations alone: both widths are worth a look then
    assert Costs("ms", {"a": table}).distinct(range(2, 11), range(2, 13)) == {"a": ((2, 8, 10), (3, 4, 8, 12))}
