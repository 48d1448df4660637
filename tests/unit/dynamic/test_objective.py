"""The selector in training, the mixture of widths, and the loss with the cost of the bits."""

import numpy as np
import pytest
import torch

from licquant.allocate.costs import bops_cost
from licquant.dynamic import objective as dynamic_objective
from licquant.dynamic.lowering import lower_dynamic
from licquant.dynamic.nested import NestedLayer, NestedTensor
from licquant.dynamic.network import one_hot
from licquant.dynamic.objective import (
    FIRST_TEMPERATURE,
    LAST_TEMPERATURE,
    AdaptiveModel,
    DynamicObjective,
    bit_costs,
    cost_weighted,
    dynamic_task,
    layer_average,
)
from licquant.dynamic.selector import features_of
from licquant.dynamic.settings import DynamicSettings
from licquant.dynamic.stages import FIXED_BITS, dynamic_plan, stage_statistics, stages_of
from licquant.models.trace import trace_model
from licquant.program.selector import pool, positions, sample
from licquant.quant.calibrate import collect_statistics
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.natural import settle
from licquant.quant.synthetic import dead_leaves
from tests.dynamic_networks import insert_dynamic
from tests.models_for_tests import small_hyperprior

WIDTHS = (4, 6, 8)


@pytest.fixture(scope="module")
def traced():
    return trace_model(small_hyperprior())


@pytest.fixture(scope="module")
def statistics(traced):
    return stage_statistics(traced, collect_statistics(traced, dead_leaves(2, 128)))


@pytest.fixture
def network(traced, statistics):
    return insert_dynamic(traced, WIDTHS, statistics)


@pytest.fixture(scope="module")
def samples():
    return torch.from_numpy(np.stack([i.transpose(2, 0, 1) for i in dead_leaves(2, 64, seed=6)]).copy())


def test_stages_are_the_modules_with_their_normalization(traced):
    names = {name: [(s.name, len(s.steps)) for s in stages_of(traced.graphs[name])] for name in ("g_a", "g_s")}
    assert names["g_a"] == [("g_a.0", 2), ("g_a.2", 2), ("g_a.4", 2), ("g_a.6", 1)]
    assert [name for name, _ in names["g_s"]] == ["g_s.0", "g_s.2", "g_s.4", "g_s.6"]


def test_the_plan_has_fixed_widths_where_nothing_is_chosen(traced):
    plan = dynamic_plan(traced, 10)
    assert {plan[name].weight for name in ("g_a.0", "g_a.1", "g_s.0", "h_a.0", "h_s.2")} == {FIXED_BITS}
    assert {plan[name].weight for name in ("g_a.2", "g_a.6", "g_s.3", "g_s.6")} == {10}


def test_features_are_those_of_the_codec():
    q = torch.from_numpy(np.random.default_rng(0).integers(-40000, 40000, (2, 8, 61, 37))).float()
    found = features_of(q)
    for image, expected in zip(q.long().numpy(), found.numpy(), strict=True):
        np.testing.assert_array_equal(pool(sample(image, positions(61), positions(37)), (61, 37)), expected)


def test_untrained_selectors_choose_the_widest(network, statistics, samples):
    model = AdaptiveModel.around(network, statistics).eval()
    for chosen in model.widths(samples.float() / 255):
        assert set(chosen) == {"g_a.2", "g_a.4", "g_a.6", "g_s.2", "g_s.4", "g_s.6"}
        assert set(chosen.values()) == {8}


def test_a_one_hot_mixture_is_the_chosen_width(network):
    part = network.networks["g_a"]
    q = torch.randint(0, 256, (3, 3, 64, 64)).float()
    choice = torch.tensor([[0, 1, 2], [2, 2, 2], [0, 0, 1]])
    with torch.no_grad():
        mixed = part(q, lambda _: one_hot(choice, 3))
        for image, widths in enumerate(choice.tolist()):
            value = part.stages[0].widest(q[image : image + 1])
            for stage, k in zip(part.stages[1:], widths, strict=True):
                value = stage.parts[WIDTHS[k]](value)
            torch.testing.assert_close(mixed[image : image + 1], value, rtol=1e-5, atol=1e-3)


def test_a_soft_mixture_is_weighted(network):
    part = network.networks["g_a"]
    stage = part.stages[-1]
    q = torch.randint(0, 256, (1, 3, 64, 64)).float()
    weights = torch.tensor([[[0.0, 0, 1], [0, 0, 1], [0.2, 0.3, 0.5]]])
    with torch.no_grad():
        value = part.stages[0].widest(q)
        for before in part.stages[1:-1]:
            value = before.widest(value)
        expected = sum(w * p(value) for w, p in zip((0.2, 0.3, 0.5), stage.parts.values(), strict=True))
        torch.testing.assert_close(part(q, lambda _: weights), expected, rtol=1e-5, atol=1e-3)


def test_bits_count_every_layer_alike(network):
    costs = bit_costs(network, layer_average)
    assert sum(float(t[:, 2].sum()) for t in costs.values()) == pytest.approx(8)
    # Two stages of two layers (GDN included) and one of one, on either side.
    torch.testing.assert_close(costs["g_a"], torch.tensor([[8.0, 12, 16], [8, 12, 16], [4, 6, 8]]) / 10)


def test_bits_weighted_by_operations(network, traced):
    costs = bops_cost(traced)
    tables = bit_costs(network, cost_weighted(costs))
    assert sum(float(t[:, 2].sum()) for t in tables.values()) == pytest.approx(8)
    assert float(tables["g_a"][0, 0] / tables["g_a"][0, 2]) == pytest.approx(0.25)  # (4 / 8)²
    share = costs.of("g_s.2", 8, 8) + costs.of("g_s.3", 8, 8)
    whole = sum(costs.of(f"{p}.{i}", 8, 8) for p in ("g_a", "g_s") for i in range(2, 7))
    assert float(tables["g_s"][0, 2]) == pytest.approx(8 * share / whole, rel=1e-5)


def test_the_loss_is_what_its_figures_say(network, statistics, samples):
    model = AdaptiveModel.around(network, statistics)
    model.price.fill_(0.5)
    objective = DynamicObjective(model, 0.01, "mse", None, bit_costs(network, layer_average), 10).eval()
    loss, figures = objective(samples)
    named = dict(zip(objective.figures, figures.tolist(), strict=True))
    assert named["bits"] == pytest.approx(8)
    expected = named["bpp"] + 0.01 * 255**2 * named["distortion"] + 0.5 * named["bits"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(model.steps) == 0


def test_bits_below_the_target_cost_nothing(network, statistics, samples, monkeypatch):
    """By what would be chosen, whatever the probabilities; what the loss is does not depend on it."""
    monkeypatch.setattr(dynamic_objective, "ENTROPY", 0.0)
    model = AdaptiveModel.around(network, statistics)  # chooses 8 bits everywhere, with a probability below 1
    model.price.fill_(3.0)
    slopes, losses = [], []
    for target in (None, 8.0, 7.9):
        objective = DynamicObjective(model, 0.0, "mse", target, bit_costs(network, layer_average), 10)
        model.steps.zero_()  # the temperature's
        torch.manual_seed(0)
        loss, _ = objective(samples)
        losses.append(float(loss.detach()))
        bias = model.selectors["g_s"].network.layers["g_s.selector.logits"].bias
        slopes.append(torch.autograd.grad(loss, bias)[0])
    assert losses[0] == losses[1] == losses[2]
    assert torch.equal(slopes[0], slopes[2])
    # At λ = 0 nothing but their price has a gradient in the widths of g_s.
    assert not slopes[1].any()
    assert slopes[0].any()


def test_probabilities_are_kept_from_0_and_1(network, statistics, samples):
    """Where all widths lose alike and cost nothing that counts, they become alike."""
    model = AdaptiveModel.around(network, statistics)
    model.price.fill_(1000.0)
    loss, _ = DynamicObjective(model, 0.0, "mse", 8.0, bit_costs(network, layer_average), 10)(samples)
    bias = model.selectors["g_s"].network.layers["g_s.selector.logits"].bias
    slope = torch.autograd.grad(loss, bias)[0].view(3, 3)
    assert (slope[:, 2] > 0).all()  # of the widest, which begins with the largest logit
    assert (slope[:, :2] < 0).all()


def test_widths_that_hardly_count_are_not_computed(network, statistics, samples):
    model = AdaptiveModel.around(network, statistics)
    selector = model.selectors["g_a"]
    selector.temperature = 0.1
    q = torch.randint(0, 1 << 16, (64, 8, 16, 16)).float()
    weights, probabilities = selector(q)
    torch.testing.assert_close(weights.sum(2), torch.ones(64, 3))
    assert (weights == 0).float().mean() > 0.5
    assert weights[weights > 0].min() >= 2.0**-7
    assert probabilities.min() > 0.1


def test_the_temperature_falls_with_training(network, statistics, samples):
    model = AdaptiveModel.around(network, statistics)
    objective = DynamicObjective(model, 0.01, "mse", None, bit_costs(network, layer_average), 2)
    seen = []
    for _ in range(3):
        objective(samples)
        seen.append(model.selectors["g_s"].temperature)
    assert seen == pytest.approx([FIRST_TEMPERATURE, (FIRST_TEMPERATURE * LAST_TEMPERATURE) ** 0.5, LAST_TEMPERATURE])


@pytest.mark.parametrize("typical_bits", [None, {"g_a.2": 5.0}])
def test_shared_weights_move_in_steps_of_the_typical_width(traced, statistics, typical_bits):
    """By default the middle of {4,6,8}: four steps of the 8-bit grid; where the width is fixed, one."""
    network = insert_dynamic(traced, WIDTHS, statistics)
    dynamic_task(network, statistics, recipe(), DynamicSettings(WIDTHS, 1.0), layer_average, typical_bits)
    of_stage = 8.0 if typical_bits else 4.0
    part = network.wide.part("g_a")
    steps = {step.name: step for step in part.graph}
    for name, expected in (("g_a.0", 1.0), ("g_a.2", of_stage), ("g_a.3", of_stage), ("g_a.4", 4.0)):
        layer = part.layers[name]
        before = (layer.folded(part.weight_scale(steps[name])) / layer.rows()).detach()
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(1)
        moved = (layer.folded(part.weight_scale(steps[name])) / layer.rows()).detach() - before
        torch.testing.assert_close(moved, torch.full_like(moved, expected), rtol=1e-3, atol=1e-3)


def test_logits_choose_as_at_inference(network, statistics):
    """What training on a GPU goes by; only logits within some steps of one another may be ordered differently."""
    selector = AdaptiveModel.around(network, statistics).selectors["g_a"].eval()
    with torch.no_grad():
        for layer in selector.network.layers.values():
            layer.weight.normal_(std=0.5)
        q = torch.randint(0, 1 << 16, (64, 8, 16, 16)).float() * torch.rand(64, 8, 1, 1) ** 3
        logits, exact = selector.logits(features_of(q)), selector.choice(q)
    sure = (lambda top: top[..., 0] - top[..., 1] > 0.05)(logits.topk(2).values)
    assert sure.float().mean() > 0.8
    assert len(exact.unique()) > 1
    assert torch.equal(logits.argmax(2)[sure], exact[sure])


def test_after_the_sampling_widths_are_those_of_inference(network, statistics, samples):
    """No noise and no mixtures: the same loss twice, and nothing that the selectors could learn from."""
    model = AdaptiveModel.around(network, statistics).train()
    model.price.fill_(1.0)
    objective = DynamicObjective(model, 0.01, "mse", None, bit_costs(network, layer_average), 3)
    bias = model.selectors["g_s"].network.layers["g_s.selector.logits"].bias
    losses, moved = [], []
    for _ in range(5):
        loss, figures = objective(samples)
        moved.append(bool(torch.autograd.grad(loss, bias)[0].any()))
        losses.append(float(figures[0]))
    assert moved == [True, True, True, False, False]
    assert len(set(losses)) == 4
    assert losses[3] == losses[4]
    model.eval()
    assert float(objective(samples)[1][0]) == losses[4]


def recipe(**settings) -> FinetuneRecipe:
    return FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": 0.01, "crop": 64, **settings})


def test_everything_trained_has_a_gradient(network, statistics, samples):
    task = dynamic_task(network, statistics, recipe(), DynamicSettings(WIDTHS, 1.0))
    torch.manual_seed(0)
    loss, _ = task.objective(samples)
    loss.backward()
    trained = [p for group in task.groups for p in group["params"]]
    assert len({id(p) for p in trained}) == len(trained)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    moved = [float(p.grad.abs().sum()) > 0 for p in trained]
    assert np.mean(moved) > 0.9
    factors = [m.log_factor for m in network.modules() if isinstance(m, NestedTensor)]
    assert all(f.grad is not None and f.grad.abs() > 0 for f in factors)


def test_narrower_grids_are_trained_as_the_quantizer_trains_grids(network, statistics):
    nested = [m for m in network.modules() if isinstance(m, NestedTensor)]
    grids = dynamic_task(network, statistics, recipe(quantizer="dpa-fixed-scales"), DynamicSettings(WIDTHS, 1.0)).groups
    trained = {id(p) for group in grids for p in group["params"]}
    assert not any(id(tensor.log_factor) in trained for tensor in nested)
    assert not any(tensor.bounds_only for tensor in nested)


def test_pams_trains_the_bounds_of_narrower_grids(network, statistics):
    task = dynamic_task(network, statistics, recipe(quantizer="pams"), DynamicSettings(WIDTHS, 1.0))
    trained = {id(p) for group in task.groups for p in group["params"]}
    nested = [m for m in network.modules() if isinstance(m, NestedTensor)]
    assert all(tensor.bounds_only and id(tensor.log_factor) in trained for tensor in nested)


def test_the_seed_decides_how_the_selectors_begin(traced, statistics):
    def weights(seed):
        network = insert_dynamic(traced, WIDTHS, statistics)
        task = dynamic_task(network, statistics, recipe(seed=seed), DynamicSettings(WIDTHS, 1.0))
        return torch.cat([p.flatten() for p in task.model.selectors.parameters()])

    torch.manual_seed(5)
    first = weights(0)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_a_price_on_bits_lowers_the_widths(network, statistics, samples):
    """And what is trained can still be lowered, with every narrow weight inside the stored one."""
    task = dynamic_task(network, statistics, recipe(steps=250, learning_rate=0.05), DynamicSettings(WIDTHS, 50.0))
    assert task.objective.steps == 25  # the widths are sampled in all that follow
    optimizer = torch.optim.Adam([{"params": g["params"], "lr": 0.05 * g["share"]} for g in task.groups])
    torch.manual_seed(0)
    bits = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, figures = task.objective(samples)
        loss.backward()
        optimizer.step()
        bits.append(float(figures[3]))
    assert bits[-1] < bits[0] - 1
    settle(task.model)
    task.model.eval()
    assert min(task.model.widths(samples.float() / 255)[0].values()) == 4
    _, dynamic = lower_dynamic(task.model.network, dict(task.model.selectors))
    assert [set(stage.parts) for stage in dynamic["g_a"].stages[1:]] == [set(WIDTHS)] * 3


def test_biases_make_up_for_narrow_weights(network):
    """The mean error of a narrow stage, per channel, is smaller than with the wide layer's bias."""
    part = network.networks["g_a"]
    q = torch.from_numpy(dead_leaves(1, 128)[0].transpose(2, 0, 1).copy()).float()[None]
    with torch.no_grad():
        value = part.stages[1].widest(part.stages[0].widest(q))
        wide, narrow = (part.stages[2].parts[bits] for bits in (8, 4))
        layer = narrow.layers["g_a.4"]

        def error() -> float:
            tensors = [p.run(p.graph.steps[-1], [_before_last(p, value)]) for p in (wide, narrow)]
            return float((tensors[1] - tensors[0]).mean((0, 2, 3)).abs().mean())

        corrected = error()
        layer.bias.copy_(wide.layers["g_a.4"].bias)
        assert corrected < 0.8 * error()


def _before_last(part, value):
    for step in part.graph.steps[:-1]:
        value = part.run(step, [value])
    return value


def test_narrow_layers_follow_the_wide_weights(network):
    stage = network.networks["g_a"].stages[1]
    layer = stage.parts[4].layers["g_a.2"]
    assert isinstance(layer, NestedLayer)
    wide = network.networks["g_a"].wide.layers["g_a.2"]
    scale = stage.parts[4].weight_scale(stage.parts[4].graph.steps[1])
    before = layer.integer_weight(scale)
    with torch.no_grad():
        wide.weight.mul_(-1)
    # rounded half up: only what lies between two integers may differ from -before
    assert float((layer.integer_weight(scale) + before).abs().max()) <= 1
    layer.integer_weight(scale).sum().backward()
    assert wide.weight.grad is not None
    assert float(wide.weight.grad.abs().sum()) > 0
