"""The dynamic network before it is trained: its narrower grids beside those of static networks."""

import pytest
import torch

from licquant.dynamic.nested import NestedTensor
from licquant.dynamic.network import one_hot
from licquant.dynamic.stages import at_width, dynamic_plan, stages_of
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics, to_tensor
from licquant.quant.dataflow import code, run_float
from licquant.quant.insert import QuantizerSettings, insert_quantizers
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_networks import insert_dynamic
from tests.models_for_tests import small_hyperprior

WIDTHS = (4, 6, 8)


@pytest.fixture(scope="module")
def traced():
    return trace_model(small_hyperprior())


@pytest.fixture(scope="module")
def statistics(traced):
    return collect_statistics(traced, dead_leaves(4, 128))


@pytest.mark.parametrize("free", [False, True])
def test_a_zero_point_stays_where_it_is_in_the_range(traced, statistics, free):
    """In mid-range, where the INT8 kernels of transposed convolutions want it."""
    network = insert_dynamic(traced, WIDTHS, statistics, QuantizerSettings(free_zero_points=free))
    nested = [m for m in network.modules() if isinstance(m, NestedTensor)]
    assert len(nested) == 20  # two widths of six stages' inputs and of four GDNs' squares
    for tensor in nested:
        wide, narrow = (t.zero_point / (2**t.bits - 1) for t in (tensor.wider, tensor))
        assert (wide - narrow).abs().max() <= 0.5 / (2**tensor.bits - 1) + 1e-6
        middle = tensor.wider.zero_point == 1 << (tensor.wider.bits - 1)
        assert (tensor.zero_point[middle] == 1 << (tensor.bits - 1)).all()
        assert 1 < float(tensor.factor) <= 255 / (2**tensor.bits - 1) + 1e-4  # finer than that: clipped on one side


@pytest.mark.parametrize("free", [False, True])
def test_a_narrow_stage_is_as_good_as_a_static_one(traced, statistics, free):
    """Each stage alone at 4 and 6 bits: the error that it adds to the picture, beside that of a plan for it alone."""
    settings = QuantizerSettings(free_zero_points=free)
    network, plan = (
        insert_dynamic(traced, WIDTHS, statistics, settings),
        dynamic_plan(traced, WIDTHS[-1]),
    )
    x = torch.cat([to_tensor(rgb) for rgb in dead_leaves(4, 128)])

    def error(run) -> float:
        with torch.no_grad():
            return float((code(traced, run, x).pixels - code(traced, run_float(traced), x).pixels).square().mean())

    for part in network.networks:
        for index, stage in enumerate(stages_of(traced.graphs[part])[1:]):
            for k, bits in enumerate(WIDTHS[:2]):

                def run(name, value, part=part, index=index, k=k):
                    chosen = torch.full((len(value), 3), 2)
                    chosen[:, index] = k if name == part else 2
                    return network.run(name, value, lambda _: one_hot(chosen, 3))

                static = insert_quantizers(traced, at_width(stage, plan, bits), statistics, settings)
                assert error(run) < 1.02 * error(static.run), (stage.name, bits)
