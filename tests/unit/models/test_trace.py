"""Tracing by modules and functions: graphs that compute what the model computes, errors that name the reason."""

import pytest
import torch
from torch import nn

from licquant.errors import ModelError
from licquant.models.graph import ACTIVATION, ADDITION, CONVOLUTION, NORMALIZATION
from licquant.models.trace import trace_model, trace_part
from tests.models_for_tests import hand_made, small_hyperprior


@pytest.mark.parametrize("make", [small_hyperprior, hand_made])
def test_graphs_equal_the_model(make):
    model = make()
    traced = trace_model(model)
    x = torch.rand(1, 3, 64, 128)
    with torch.no_grad():
        y = traced.graphs["g_a"].forward(x)[traced.graphs["g_a"].output]
        torch.testing.assert_close(y, model.g_a(x), atol=1e-5, rtol=1e-5)
        absolute = any(step.name == "h_a.abs" for step in traced.graphs["h_a"])
        z = traced.graphs["h_a"].forward(y)[traced.graphs["h_a"].output]
        torch.testing.assert_close(z, model.h_a(y.abs() if absolute else y), atol=1e-5, rtol=1e-5)
        for name, value in (("h_s", torch.randn_like(z)), ("g_s", torch.randn_like(y))):
            found = traced.graphs[name].forward(value)[traced.graphs[name].output]
            torch.testing.assert_close(found, getattr(model, name)(value), atol=1e-5, rtol=1e-5)


def test_hyperprior_takes_the_absolute_value_and_the_hand_made_model_does_not():
    assert trace_model(small_hyperprior()).graphs["h_a"].steps[0].name == "h_a.abs"
    assert trace_model(hand_made()).graphs["h_a"].steps[0].kind == CONVOLUTION


def test_steps_are_named_by_their_path():
    traced = trace_model(small_hyperprior())
    assert [s.name for s in traced.graphs["g_a"]] == [f"g_a.{i}" for i in range(7)]
    assert [s.name for s in traced.graphs["h_s"]] == ["h_s.0", "h_s.2", "h_s.4"]  # ReLU is part of its layer
    assert [s.negative_slope for s in traced.graphs["h_s"]] == [0, 0, 0]
    assert traced.graphs["g_a"].steps[1].kind == NORMALIZATION


def test_residual_addition_is_a_step_of_its_own():
    g_a = trace_model(hand_made()).graphs["g_a"]
    addition = next(step for step in g_a if step.kind == ADDITION)
    assert set(addition.inputs) == {"g_a.0", "g_a.2.second"}


def test_layers_beside_an_addition_read_a_copy():
    """A sum has bits to spare where the layers that read the same tensor have a copy of it in their own width."""
    g_a = trace_model(hand_made()).graphs["g_a"]
    copy = g_a.steps[1]
    assert (copy.name, copy.inputs, copy.is_identity) == ("g_a.0/copy", ("g_a.0",), True)
    assert [step.name for step in g_a.consumers(copy.name)] == ["g_a.2.first"]
    assert [step.kind for step in g_a.consumers("g_a.0")] == [ACTIVATION, ADDITION]
    assert [step.name for step in g_a if step.is_identity] == [copy.name]  # what one step alone reads has none
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(g_a.forward(x)[g_a.output], hand_made().g_a(x))


def test_activation_stays_alone_where_its_input_has_another_reader():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.conv(x)
            return y + torch.relu(y)

    from licquant.models.graph import fuse_activations

    graph = fuse_activations(trace_part(Fork(), "g_a"))
    assert [s.kind for s in graph] == [CONVOLUTION, ACTIVATION, ADDITION]
    x = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(graph.forward(x)[graph.output], Fork.forward(_with(Fork(), graph), x))


def _with(module, graph):
    module.conv.load_state_dict(graph.steps[0].module.state_dict())
    return module


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 3, dilation=2)), "dilation"),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), "zero padding"),
        (nn.Sequential(nn.Softplus()), "Softplus"),
        (nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2)), "grouped"),
    ],
)
def test_unsupported_layers_are_named(layer, reason):
    with pytest.raises(ModelError, match=reason):
        trace_part(layer, "g_a")


def test_functions_that_are_not_supported_are_named():
    class Strange(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    with pytest.raises(ModelError, match="cumsum"):
        trace_part(Strange(), "g_s")
