"""What losses an optimal allocation believes of a table of noisy ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from licquant.allocate.choices import Choices, LayerChoices
from licquant.allocate.costs import Costs
from licquant.allocate.optimal import least_loss

WIDTHS = range(2, 11)
LOSSES = st.lists(st.floats(-0.5, 5), min_size=len(WIDTHS), max_size=len(WIDTHS))


def of(*rows) -> Choices:
    return Choices(
        {f"g_a.{n}": LayerChoices(dict(zip(WIDTHS, row, strict=True)), {8: 0.0}) for n, row in enumerate(rows)}
    )


def weights(choices: Choices) -> np.ndarray:
    return np.array([list(layer.weights.values()) for layer in choices.layers.values()])


@given(LOSSES)
def test_no_gains_and_no_losses_by_a_wider_one(losses):
    (found,) = weights(of(losses).believable())
    assert (found >= 0).all()
    assert (np.diff(found) <= 0).all()


@given(LOSSES)
def test_what_stands_out_is_as_it_was_and_the_rest_falls_by_four_a_bit(losses):
    (found,) = weights(of(losses).believable())
    noise = [max(0.0, *(-loss for loss in losses[n:]), *np.diff(losses[n:])) for n in range(len(losses))]
    out = next((n for n, loss in enumerate(losses) if loss <= noise[n]), len(losses))
    np.testing.assert_array_equal(found[:out], np.minimum.accumulate(losses[:out]) if out else [])
    first = [noise[0]] if out == 0 else []
    np.testing.assert_array_equal(found[out:], [*first, *found[max(out - 1, 0) : -1] / 4][: len(found) - out])


def test_a_table_without_noise_is_believed():
    losses = 3.0 * 7.0 ** -np.arange(9.0)
    choices = of(losses).believable()
    np.testing.assert_array_equal(weights(choices)[0], losses)
    assert choices.layers["g_a.0"].activations == {8: 0.0}


def test_narrow_widths_that_are_as_bad_as_can_be_say_nothing_of_the_wide_ones():
    losses = [200.0, 250.0, 7.0, 2.0, 0.5, 0.1, 0.02, 0.01, 0.001]
    np.testing.assert_array_equal(weights(of(losses).believable())[0], [200.0, *losses[:1], *losses[2:]])


def test_widths_that_were_not_measured_count_as_bits():
    choices = Choices({"g_a.0": LayerChoices({}, {2: 0.5, 4: 0.125, 6: -0.25, 8: 0.0})}).believable()
    assert choices.layers["g_a.0"].weights == {}
    assert choices.layers["g_a.0"].activations == {2: 0.5, 4: 0.5 / 16, 6: 0.5 / 256, 8: 0.5 / 4096}


@pytest.mark.parametrize("seed", range(5))
def test_a_plan_of_what_can_be_believed_loses_less_than_one_of_the_luckiest(seed, capfd):
    """54 layers of all sizes whose losses fall by 3 to 8 times a bit, with noise as Cheng 2020's table has it."""
    rng = np.random.default_rng(seed)
    falls = np.clip(rng.normal(5.0, 1.2, (54, 8)), 3, 8)
    true = 0.1 * np.exp(rng.normal(0, 2.5, (54, 1))) / np.cumprod(np.hstack([np.ones((54, 1)), falls]), axis=1)
    noise = np.minimum(2e-4 * np.exp(rng.normal(0, 1.2, (54, 1))), 6e-4)
    table = of(*(true + noise * rng.normal(size=true.shape)))
    sizes = 10 ** rng.uniform(2, 5.7, 54)
    bits = np.arange(2.0, 17.0)[:, None] * np.ones(15)
    costs = Costs("bits", {layer: bits * size for layer, size in zip(table.layers, sizes, strict=True)})
    lost = [
        of(*true).loss(least_loss(choices, costs, 7 * sizes.sum()))
        for choices in (of(*true), table.believable(), table)
    ]
    assert lost[0] <= lost[1] < 0.75 * lost[2]
    assert lost[1] < 1.6 * lost[0]
    assert capfd.readouterr().out == ""  # the solver's own: of these HiGHS prints
