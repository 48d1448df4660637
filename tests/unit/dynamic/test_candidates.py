"""Which widths a stage keeps: those that enough images want, and with which the average can be kept."""

import pytest
import torch

from licquant.dynamic.candidates import widths_in_use
from licquant.dynamic.network import insert_widest, make_dynamic
from licquant.dynamic.objective import bit_costs, layer_average
from licquant.dynamic.settings import DynamicSettings
from licquant.dynamic.stages import dynamic_plan, input_of, stage_statistics
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.insert import insert_quantizers
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_networks import insert_dynamic
from tests.models_for_tests import small_hyperprior

WIDTHS = (4, 6, 8)
STAGES = ("g_a.2", "g_a.4", "g_a.6", "g_s.2", "g_s.4", "g_s.6")


@pytest.fixture(scope="module")
def traced():
    return trace_model(small_hyperprior())


@pytest.fixture(scope="module")
def statistics(traced):
    return stage_statistics(traced, collect_statistics(traced, dead_leaves(2, 128)))


@pytest.fixture(scope="module")
def network(traced, statistics):
    return insert_dynamic(traced, WIDTHS, statistics)


def wanted(**shares):
    """Of 100 images, how many want each of 4, 6 and 8 bits; all want 8 where nothing is said."""
    return {
        stage: torch.tensor(WIDTHS)
        .float()
        .repeat_interleave(torch.tensor(shares.get(stage[:3] + stage[4:], (0, 0, 100))))
        for stage in STAGES
    }


def kept(network, given, average=8.0):
    return widths_in_use(network, given, DynamicSettings(WIDTHS, average_bits=average), layer_average)


ALL = ("g_a2", "g_a4", "g_a6", "g_s2", "g_s4", "g_s6")


def test_three_fifths_of_the_images_decide(network):
    given = wanted(g_a2=(60, 40, 0), g_a4=(10, 31, 59), g_a6=(9, 32, 59), g_s2=(41, 59, 0), g_s4=(0, 95, 5))
    assert kept(network, given, 6.5) == {
        "g_a.2": (4,), "g_a.4": (4, 6, 8), "g_a.6": (6, 8), "g_s.2": (4, 6, 8), "g_s.4": (6,), "g_s.6": (8,)
    }  # fmt: skip


def test_every_part_keeps_something_to_choose(network):
    """Where most want the widest, if there is such a stage; else where most want something else than most."""
    found = kept(network, wanted(g_a2=(40, 60, 0), g_a4=(0, 5, 95), g_a6=(6, 0, 94), g_s2=(2, 98, 0), g_s4=(95, 5, 0),
                                 g_s6=(0, 100, 0)), 6.1)  # fmt: skip
    assert found == {
        "g_a.2": (6,), "g_a.4": (8,), "g_a.6": (6, 8), "g_s.2": (6,), "g_s.4": (4, 6), "g_s.6": (6,)
    }  # fmt: skip


def test_images_compete_for_what_the_average_leaves(network):
    """The stages that most images want wider get wider widths, until not all can have them."""
    given = wanted(g_a2=(70, 20, 10), g_a4=(80, 20, 0), g_s2=(0, 99, 1), g_s4=(0, 100, 0))
    alone = {"g_a.2": (4,), "g_a.4": (4,), "g_a.6": (8,), "g_s.2": (6,), "g_s.4": (6,), "g_s.6": (6, 8)}
    assert kept(network, given, 5.5) == alone | {"g_a.6": (6, 8)}  # 5.6 bits where all are at the widest
    further = alone | {"g_a.2": WIDTHS}
    assert [kept(network, given, average) for average in (5.6, 6.3)] == [further, further]
    assert kept(network, given, 6.4) == further | {"g_a.4": WIDTHS}
    assert kept(network, given, 8.0) == further | {"g_a.4": WIDTHS, "g_s.2": (6, 8), "g_s.6": (8,)}


def test_fewer_stages_are_decided_where_the_average_needs_it(network):
    given = wanted(**dict.fromkeys(ALL, (30, 0, 70)))
    assert sum(len(widths) > 1 for widths in kept(network, given).values()) == 2
    assert kept(network, given, 7.3) == kept(network, given)  # 7.2 with the two
    assert set(kept(network, given, 6.0).values()) == {WIDTHS}
    for narrow in (1, 6, 10):  # of 100 images, who want what no other does
        nearly = wanted(**dict.fromkeys(ALL, (narrow, 0, 100 - narrow)))
        assert set(kept(network, nearly, 6.0).values()) == {WIDTHS}


def test_an_average_that_is_just_kept_is_kept(network):
    """Whatever the sums of its costs are rounded to."""
    given = wanted(**dict.fromkeys(ALL, (30, 0, 70)))
    for unit in (0.1, 0.3, 0.7, 1.1, 1 / 3):
        found = widths_in_use(
            network,
            given,
            DynamicSettings(WIDTHS, average_bits=7.2),
            lambda layers, bits, u=unit: u * len(layers) * bits,
        )
        assert found == kept(network, given)


def test_a_price_needs_no_average(network):
    found = widths_in_use(
        network, wanted(**dict.fromkeys(ALL, (30, 0, 70))), DynamicSettings(WIDTHS, gamma=0.1), layer_average
    )
    assert sum(len(widths) == 1 for widths in found.values()) == 4


def test_stages_that_keep_a_width_are_those_of_a_static_network(traced, statistics):
    candidates = {"g_a.2": (4,), "g_a.4": (6, 8), "g_a.6": (8,), "g_s.2": (6,), "g_s.4": (4, 6, 8), "g_s.6": (8,)}
    plan = dynamic_plan(traced, candidates)
    assert [plan[stage].weight for stage in STAGES] == [4, 8, 8, 6, 8, 8]
    model = make_dynamic(insert_widest(traced, candidates, statistics), candidates, statistics)
    assert model.candidates == candidates
    static, x = insert_quantizers(traced, plan, statistics), torch.rand(2, 3, 64, 64)
    for name, network in model.networks.items():
        assert [stage.widths for stage in network.adaptive] == [w for s, w in candidates.items() if name in s and w[1:]]
        own, (chooser,) = static.part(name), network.adaptive
        assert {step.name for step in network.wide.graph} - {step.name for step in own.graph} == {
            input_of(chooser.name)
        }
        before = next(step.inputs[0] for step in own.graph if step.name == chooser.name)
        assert network.wide.tensors[before].bits == 16  # rounded to its width by the stage that chooses
        for tensor in (step.name for step in own.graph if step.name != before):
            torch.testing.assert_close(network.wide.tensors[tensor].scale, own.tensors[tensor].scale)
        torch.testing.assert_close(network.wide.tensors[input_of(chooser.name)].scale, own.tensors[before].scale)
        value = x if name == "g_a" else torch.randint(-9, 10, (2, 12, 4, 4)).float()
        widest = torch.cat([torch.eye(n)[-1] for n in network.sizes]).expand(2, -1)
        with torch.no_grad():
            apart = (model.run(name, value, lambda _, w=widest: w) - static.run(name, value)).abs()
        assert float((apart > 1e-5).float().mean()) < 0.05  # near ties, rounded twice
    costs = bit_costs(model, layer_average, 8)
    assert costs.fixed == pytest.approx((2 * 4 + 8 + 2 * 6 + 8) / 10)
    torch.testing.assert_close(costs.tables["g_s"], torch.tensor([8.0, 12, 16]) / 10)
