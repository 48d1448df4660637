"""Where selectors begin: measured losses of the stages, the price of a bit, and selectors fitted to them."""

import pytest
import torch

from licquant.allocate.sensitivity import draw_crops
from licquant.dynamic import selector_fit
from licquant.dynamic.objective import AdaptiveModel, bit_costs, layer_average
from licquant.dynamic.selector import BitWidthSelector, features_of, make_selectors
from licquant.dynamic.selector_fit import (
    SELECTOR_SIDES,
    StageLosses,
    features_of_images,
    fit_selectors,
    fit_to_losses,
    keep_average,
    measure_stages,
    price_for,
)
from licquant.dynamic.settings import DynamicSettings
from licquant.errors import BudgetError
from licquant.models.trace import trace_model
from licquant.quant.calibrate import collect_statistics
from licquant.quant.dataflow import code
from licquant.quant.in_training.finetune_settings import FinetuneRecipe
from licquant.quant.rd import rate_distortion
from licquant.quant.synthetic import dead_leaves
from licquant.train.settings import METRICS
from tests.dynamic_networks import insert_dynamic
from tests.models_for_tests import small_hyperprior

WIDTHS = (3, 5, 8)
LMBDA = 0.02


@pytest.fixture(scope="module")
def traced():
    return trace_model(small_hyperprior())


@pytest.fixture(scope="module")
def statistics(traced):
    return collect_statistics(traced, dead_leaves(2, 128))


@pytest.fixture(scope="module")
def network(traced, statistics):
    return insert_dynamic(traced, WIDTHS, statistics)


@pytest.fixture(scope="module")
def crops():
    return draw_crops(dead_leaves(3, 128, seed=4), 3, 64)


@pytest.fixture(scope="module")
def found(network, crops):
    return measure_stages(network, crops, LMBDA, "mse")


def test_losses_are_those_of_one_narrow_stage(network, crops, found):
    def loss(x, narrow):
        def run(name, value):
            def select(q):
                weights = torch.zeros(1, 3, 3)
                for stage in range(3):
                    weights[0, stage, narrow.get((name, stage), 2)] = 1
                return weights

            return network.run(name, value, select)

        with torch.no_grad():
            return rate_distortion(code(network.wide.traced, run, x), x, LMBDA, "mse")[0]

    base = loss(crops[1:2], {})
    for name, stage, k in (("g_a", 0, 0), ("g_a", 2, 1), ("g_s", 1, 0), ("g_s", 2, 1)):
        expected = loss(crops[1:2], {(name, stage): k}) - base
        torch.testing.assert_close(found[name].losses[1, stage, k], expected, rtol=1e-4, atol=1e-5)
        assert expected != 0
    for of in found.values():
        assert of.losses.shape == (3, 3, 3)
        assert not of.losses[:, :, 2].any()


def test_selectors_are_shown_what_they_read(network, crops, found):
    part = network.networks["g_a"]
    with torch.no_grad():
        first = part.stages[0].widest(part.wide.tensors["input"].quantize(crops))
    # In another batch size some integers are others.
    torch.testing.assert_close(found["g_a"].features.float(), features_of(first).float(), atol=64, rtol=0)
    assert found["g_s"].features.shape[0] == 3


def test_the_price_is_the_lowest_that_reaches_the_average():
    losses = torch.tensor([[[9.0, 3.0, 0.0]], [[18.0, 6.0, 0.0]]])
    found = {"g_a": StageLosses(losses, torch.zeros(2, 1, 8, 8))}
    # Image 0 goes from 8 to 5 bits at a price of 1 and to 3 bits at 3, image 1 at 2 and 6.
    costs = {"g_a": torch.tensor([[3.0, 5.0, 8.0]])}
    for average, price in ((7.9, 1), (6.5, 1), (6.4, 2), (5, 2), (4, 3), (3, 6)):
        assert price_for(found, costs, average) == pytest.approx(price, rel=1e-5)
    with pytest.raises(BudgetError, match=r"2\.9 bits cannot be met: these widths cost at least 3\.00"):
        price_for(found, costs, 2.9)


def test_selectors_learn_which_images_lose_what(network, statistics):
    """Busy images lose by narrow widths, flat ones do not; no width is the best for both."""
    selectors = make_selectors(network, statistics)
    torch.manual_seed(0)
    seen = torch.randn(24, 8, 32, 32) * 1e4
    seen[::2] *= 0.1
    losses = torch.zeros(24, 3, 3)
    losses[1::2, :, :2] = 10.0
    costs = {"g_a": torch.tensor([3.0, 5.0, 8.0]).repeat(3, 1)}
    found = {"g_a": StageLosses(losses, features_of(seen))}
    fit_selectors({"g_a": selectors["g_a"]}, found, costs, 1.0)
    unseen = torch.randn(6, 8, 32, 32) * 1e4
    unseen[::2] *= 0.1
    chosen = selectors["g_a"].eval().choice(unseen)
    assert chosen[::2].eq(0).all()
    assert chosen[1::2].eq(2).all()


def test_selectors_tell_apart_crops_that_they_have_not_seen():
    """From few crops whose cells differ by chance: neither learned by heart nor the same for all."""
    torch.manual_seed(0)
    activity = torch.rand(96, 32)
    cells = activity[:, :, None, None] * torch.rand(96, 32, 5, 5).mul(2)
    features = (cells * 20 * (1 << 8)).long()
    lost = activity[:, ::4].mean(1) - activity[:, 1::4].mean(1)
    losses = torch.stack([lost, torch.zeros(96)], 1)[:, None]
    selector = BitWidthSelector("g_a", torch.full((32,), 10.0), (1, 2))
    seen = {"g_a": StageLosses(losses[:48], features[:48])}
    fit_selectors({"g_a": selector}, seen, {"g_a": torch.tensor([[7.0, 7.01]])}, 0.01)
    logits = selector.eval().logits(features[48:]).detach()[:, 0]
    assert torch.corrcoef(torch.stack([logits[:, 1] - logits[:, 0], lost[48:]]))[0, 1] > 0.6


@pytest.mark.parametrize("seed", [0, 1])
def test_hidden_units_stay_alive(seed):
    """Where thousands of magnitudes are alike in all crops but for a little, and whatever was learned before."""
    torch.manual_seed(seed)
    texture = torch.rand(64)
    differences = 0.1 * (texture - 0.5)[:, None, None, None] * torch.rand(192)[:, None, None]
    features = ((1 + differences + 0.05 * torch.randn(64, 192, 5, 5)) * 20 * (1 << 8)).long()
    losses = torch.stack([texture, torch.zeros(64)], 1)[:, None]
    selector = BitWidthSelector("g_a", torch.full((192,), 20.0), (1, 2))
    next(iter(selector.network.layers.values())).bias.data.fill_(-1e3)
    seen = {"g_a": StageLosses(losses[:32], features[:32])}
    fit_selectors({"g_a": selector}, seen, {"g_a": torch.tensor([[0.0, 0.5]])}, 1.0)
    logits = selector.eval().logits(features[32:]).detach()[:, 0]
    assert torch.corrcoef(torch.stack([logits[:, 1] - logits[:, 0], texture[32:]]))[0, 1] > 0.8


ACTIVITY = torch.linspace(0.2, 1.8, 32)  # of images, the calm ones first
COSTS = {"g_a": torch.tensor([1.0, 2.0, 3.0]).repeat(3, 1)}


def calm_to_busy():
    """(what a selector may read, the losses of three stages with three widths) of images of growing activity."""
    torch.manual_seed(0)
    seen = torch.randn(32, 8, 32, 32) * 1e4 * ACTIVITY.view(-1, 1, 1, 1)
    losses = torch.outer(ACTIVITY, torch.tensor([6.0, 3.0, 0.0]))[:, None].repeat(1, 3, 1)
    return seen, {"g_a": StageLosses(losses, features_of(seen))}


@pytest.mark.parametrize("average", [3.5, 5.0, 7.5])
def test_the_selectors_own_choices_keep_the_average(network, statistics, average):
    """Fitted for a price at which they choose otherwise; the busiest images get what bits there are."""
    selector = make_selectors(network, statistics)["g_a"]
    seen, found = calm_to_busy()
    fit_selectors({"g_a": selector}, found, COSTS, 3.0)
    price = keep_average({"g_a": selector}, {"g_a": found["g_a"].features}, COSTS, 3.0, average)
    bits = selector.eval().choice(seen).float().add(1).sum(1)
    assert average - 0.3 < float(bits.mean()) <= average + 1e-4
    assert (price > 3) == (average < 6)
    assert torch.corrcoef(torch.stack([bits, ACTIVITY]))[0, 1] > 0.5


def test_bits_that_a_common_price_leaves_over_are_spent():
    """All images alike: stage 0 gains most of a bit but takes 3 more, which there are not; stage 1 takes 1."""
    torch.manual_seed(0)
    selector = BitWidthSelector("g_a", torch.full((8,), 10.0), (2, 2))
    features = torch.full((16, 8, 5, 5), 10 << 8)
    losses = torch.tensor([[6.0, 0.0], [1.0, 0.0]]).expand(16, 2, 2)
    costs = {"g_a": torch.tensor([[1.0, 4.0], [1.0, 2.0]])}
    for average, chosen in ((2.5, [0, 0]), (3.5, [0, 1]), (5.5, [1, 0]), (6.5, [1, 1])):
        fit_selectors({"g_a": selector}, {"g_a": StageLosses(losses, features)}, costs, 1.5)
        price = keep_average({"g_a": selector}, {"g_a": features}, costs, 1.5, average)
        assert selector.choice_for(features).unique(dim=0).tolist() == [chosen]
        assert (price > 1.5) == (average < 5)


@pytest.mark.parametrize("metric", METRICS)
def test_crops_are_large_enough_for_the_metric(metric, network):
    crops = draw_crops(dead_leaves(1, 256), 1, SELECTOR_SIDES[metric])
    for of_part in measure_stages(network, crops, LMBDA, metric).values():
        assert of_part.losses[0, :, -1].abs().max() == 0  # the widest
        assert of_part.losses.isfinite().all()
        assert of_part.losses.abs().max() > 0


def test_a_start_reaches_the_average(network, statistics, crops, monkeypatch):
    recipe = FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": LMBDA, "crop": 64})
    costs = bit_costs(network, layer_average)
    seen = measure_stages(network, crops, LMBDA, "mse")
    # Stages lose the more the later they come, all crops alike: a trained model's, which this one is not.
    rising = torch.tensor([[9.0, 3, 0], [18, 6, 0], [36, 12, 0]]).expand(3, 3, 3)
    losses = {name: StageLosses(rising, of.features) for name, of in seen.items()}
    monkeypatch.setattr(selector_fit, "measure_stages", lambda *_: losses)
    prices = []
    for average in (7.0, 4.0):
        model = AdaptiveModel.around(network, statistics)
        fit_to_losses(
            model, crops, [*crops.split(1)], recipe, DynamicSettings(WIDTHS, average_bits=average), layer_average
        )
        model.eval()
        bits = 0.0
        for name, of in losses.items():  # not those of a run, where g_s reads what narrow widths in g_a put out
            chosen = model.by_part[name].choice_for(of.features)
            bits += sum(float(costs[name][stage, chosen[:, stage]].mean()) for stage in range(3))
        assert average - 1 < bits <= average + 1e-4
        prices.append(float(model.price))
    assert prices[0] < prices[1]


def test_the_price_becomes_that_of_the_selectors_own_choices(network, statistics, crops, monkeypatch):
    recipe = FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": LMBDA, "crop": 64})
    model = AdaptiveModel.around(network, statistics)
    monkeypatch.setattr(selector_fit, "keep_average", lambda *_: 7.5)
    fit_to_losses(model, crops, [*crops.split(1)], recipe, DynamicSettings(WIDTHS, average_bits=6.0), layer_average)
    assert float(model.price) == 7.5


def test_the_average_is_that_of_whole_images(network, statistics, crops, monkeypatch):
    """Of whatever sizes; crops, busier or flatter, only say what widths lose."""
    recipe = FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": LMBDA, "crop": 64})
    model = AdaptiveModel.around(network, statistics)
    photographs, kept = [torch.rand(1, 3, 64, 128), torch.rand(1, 3, 192, 64)], {}
    monkeypatch.setattr(selector_fit, "keep_average", lambda _, seen, *others: kept.update(seen) or 1.0)
    fit_to_losses(model, crops, photographs, recipe, DynamicSettings(WIDTHS, average_bits=6.0), layer_average)
    seen = [features_of_images(network, [x], LMBDA, "mse") for x in photographs]
    assert set(kept) == {"g_a", "g_s"}
    for name, of_part in kept.items():
        assert torch.equal(of_part, torch.cat([of[name] for of in seen]))
        assert not torch.equal(of_part[0], of_part[1])
    measured = measure_stages(network, crops, LMBDA, "mse")
    same = features_of_images(network, crops.split(1), LMBDA, "mse")
    assert all(torch.equal(of_part, measured[name].features) for name, of_part in same.items())


def test_a_given_price_is_kept(network, statistics, crops):
    recipe = FinetuneRecipe.from_mapping({"model": "bmshj2018-hyperprior", "lmbda": LMBDA, "crop": 64})
    model = AdaptiveModel.around(network, statistics)
    model.price.fill_(1e6)
    fit_to_losses(model, crops, [*crops.split(1)], recipe, DynamicSettings(WIDTHS, 1e6), layer_average)
    assert float(model.price) == 1e6
    assert set(model.eval().widths(crops[:1])[0].values()) == {3}
