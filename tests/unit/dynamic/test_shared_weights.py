"""Where the weights that several widths share are moved before the training."""

import copy

import pytest
import torch

from licquant.dynamic import shared_weights
from licquant.dynamic.nested import NestedLayer
from licquant.dynamic.network import insert_widest, make_dynamic
from licquant.dynamic.objective import layer_average
from licquant.dynamic.selector_fit import StageLosses
from licquant.dynamic.settings import DynamicSettings
from licquant.dynamic.shared_weights import centre_weights, move_weights
from licquant.dynamic.stages import stage_statistics
from licquant.models.graph import NORMALIZATION
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.ranges import moments
from licquant.quant.synthetic import dead_leaves
from tests.models_for_tests import small_hyperprior

WIDTHS = (4, 6, 8)
RECIPE = FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": 0.02, "crop": 64})


@pytest.fixture(scope="module")
def traced():
    return trace_model(small_hyperprior())


@pytest.fixture(scope="module")
def statistics(traced):
    return stage_statistics(traced, collect_statistics(traced, dead_leaves(4, 128)))


@pytest.fixture(scope="module")
def calibrated(traced, statistics):
    return insert_widest(traced, WIDTHS[-1], statistics)


@pytest.fixture
def wide(calibrated):
    return copy.deepcopy(calibrated)


def convolutions(part):
    return [step for step in part.graph if step.has_weights and step.kind != NORMALIZATION]


def in_steps(part, step):
    """The weights in units of the stored integers."""
    layer = part.layers[step.name]
    return (layer.folded(part.weight_scale(step)) / layer.rows()).detach()


def narrow_integers(wide, name, statistics):
    """(step's name, bits) → integers of the narrower convolutions."""
    network, found = make_dynamic(wide, WIDTHS, statistics).networks[name], {}
    for part in (part for stage in network.stages for part in stage.parts.values()):
        for step in convolutions(part):
            layer = part.layers[step.name]
            if isinstance(layer, NestedLayer):
                found[step.name, layer.bits] = layer.integer_weight(part.weight_scale(step)).detach()
    return found


@pytest.mark.parametrize("name", ["g_a", "g_s"])
def test_half_a_step_makes_fewer_bits_those_of_the_weights_themselves(wide, statistics, name):
    part = wide.part(name)
    own = {step.name: in_steps(part, step) for step in convolutions(part)}
    biased = narrow_integers(wide, name, statistics)
    for step in convolutions(part):
        move_weights(part, step, statistics, 0.5)
    centred = narrow_integers(wide, name, statistics)
    assert len(centred) == 6  # two widths of three stages
    for (layer, bits), found in centred.items():
        coarse = 2 ** (8 - bits)
        asked, inside = own[layer] / coarse, own[layer].abs() < 100
        nearest = torch.floor(asked + 0.5)
        tie = (asked + 0.5 - nearest).abs() < 1e-3  # a sum in float32 decides these
        assert torch.equal(found[inside & ~tie], nearest[inside & ~tie]), (layer, bits)
        bias = float(((biased[layer, bits] - asked) * coarse)[inside].mean())
        assert bias == pytest.approx(0.5, abs=0.3), (layer, bits)


@pytest.mark.parametrize("name", ["g_a", "g_s"])
def test_the_mean_of_what_a_layer_puts_out_is_kept(wide, calibrated, statistics, name):
    part = wide.part(name)
    for step in convolutions(part):
        move_weights(part, step, statistics, 0.5)
        mean, _ = moments(statistics[f"{name}.input" if step.inputs[0] == "input" else step.inputs[0]])
        means = []
        for of in (calibrated.part(name), part):
            layer, scale = of.layers[step.name], of.weight_scale(step).detach()
            x = (mean / scale).view(1, -1, 1, 1).expand(1, -1, 24, 24)
            out = layer.accumulate(x, layer.integer_weight(scale) * layer.rows(), layer.bias).detach()
            inner = out[:, :, 4:-4, 4:-4]
            assert inner.shape[2] in (4, 16, 40)  # of a transposed one as many of every phase
            means.append(inner.mean((0, 2, 3)))
        torch.testing.assert_close(means[1], means[0], rtol=1e-4, atol=1e-5)
        moved = (in_steps(calibrated.part(name), step) - in_steps(part, step)).mean()
        assert float(moved) == pytest.approx(0.5, abs=1e-3)


def test_a_stage_moves_by_half_the_share_of_the_images_that_want_fewer_bits(wide, calibrated, statistics, monkeypatch):
    """In the second round another share: it is where that says that the weights are in the end."""
    shares = iter([{"g_a": (0, 0.5, 1), "g_s": (1, 1, 0.25)}, {"g_a": (0, 1, 0.5), "g_s": (1, 0, 0.75)}])

    def measured(model, crops, lmbda, metric, on_progress):
        assert len(crops) == 8  # a quarter of them is enough for shares
        wanted, found = next(shares), {}
        for name in model.networks:
            losses = torch.zeros(8, 3, 3)
            for stage, share in enumerate(wanted[name]):
                losses[:, stage, :2] = 9.0
                losses[: int(8 * share), stage, 1] = 0.0
            found[name] = StageLosses(losses, torch.zeros(8, 1, 8, 8))
        return found

    monkeypatch.setattr(shared_weights, "measure_stages", measured)
    dynamic = DynamicSettings(WIDTHS, gamma=0.001)
    made, found = centre_weights(
        lambda: make_dynamic(wide, WIDTHS, statistics),
        statistics,
        torch.zeros(32),
        RECIPE,
        dynamic,
        layer_average,
    )
    assert made.wide is wide
    assert [*found.values()] == [8, 6, 7, 6, 8, 6.5]
    for name, wanted in (("g_a", (0, 0, 1, 0.5)), ("g_s", (0, 1, 0, 0.75))):
        part, before = wide.part(name), calibrated.part(name)
        steps = convolutions(part)
        assert len(steps) == 4
        for step, share in zip(steps, wanted, strict=True):
            moved = in_steps(before, step) - in_steps(part, step)
            torch.testing.assert_close(moved, torch.full_like(moved, share / 2), atol=1e-3, rtol=0)
        for step in part.graph:
            if step.kind == NORMALIZATION:
                assert torch.equal(part.layers[step.name].weight, before.layers[step.name].weight)
    with torch.no_grad():  # nested in the weights as they are now
        stage = made.networks["g_a"].stages[2]
        of_wide = wide.part("g_a").layers[stage.name]
        assert stage.widest.layers[stage.name] is of_wide
