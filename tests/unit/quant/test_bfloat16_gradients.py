"""Convolutions with bfloat16 gradients against the plain ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licquant.quant.bfloat16_gradients import Bfloat16Gradients

TOLERANCE = 1e-2  # a bfloat16 has 8 significant bits: 2^-8 of rounding a value, averaged over sums

pytestmark = pytest.mark.skipif(not Bfloat16Gradients().supported, reason="this processor multiplies no bfloat16")

CASES = {
    "plain": (F.conv2d, (2, 6, 12, 12), (8, 6, 5, 5), {"stride": 2, "padding": 2}),
    "grouped": (F.conv2d, (2, 6, 8, 8), (4, 3, 3, 3), {"padding": 1, "groups": 2}),
    "pointwise": (F.conv2d, (2, 6, 8, 8), (4, 6, 1, 1), {}),
    "transposed": (F.conv_transpose2d, (2, 6, 7, 7), (6, 4, 5, 5), {"stride": 2, "padding": 2, "output_padding": 1}),
}


def gradients(case: str, bias: bool = True) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of a loss with uneven weights in the input, the weights and the bias."""
    convolve, of_input, of_weight, geometry = CASES[case]
    generator = torch.Generator().manual_seed(0)
    outputs = of_weight[1] if convolve is F.conv_transpose2d else of_weight[0]
    shapes = (of_input, of_weight, (outputs,)) if bias else (of_input, of_weight)
    leaves = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
    y = convolve(*leaves, **geometry)
    loss = (y * torch.randn(y.shape, generator=generator)).sum()
    return y.detach(), list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("case", CASES)
def test_forward_is_the_same_and_gradients_are_close(case):
    expected, exact = gradients(case)
    with Bfloat16Gradients():
        found, rounded = gradients(case)
    assert torch.equal(found, expected)
    for approximate, value in zip(rounded, exact, strict=True):
        assert approximate.dtype == torch.float32
        assert approximate.shape == value.shape
        assert (approximate - value).norm() < TOLERANCE * value.norm()
    assert not torch.equal(rounded[1], exact[1])  # or it would not be bfloat16
    torch.testing.assert_close(rounded[2], exact[2])  # sums of what comes in: not rounded


def test_without_a_bias():
    with Bfloat16Gradients():
        _, rounded = gradients("pointwise", bias=False)
    _, exact = gradients("pointwise", bias=False)
    assert len(rounded) == 2
    assert all((a - b).norm() < TOLERANCE * b.norm() for a, b in zip(rounded, exact, strict=True))


@pytest.mark.parametrize("transposed", [False, True])
def test_layers_give_their_geometry_as_pairs(transposed):
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer, x = kind(3, 4, (3, 5), stride=(2, 1), padding=(1, 2)), torch.randn(1, 3, 9, 9)
    expected = layer(x)
    with Bfloat16Gradients():
        found = layer(x)
    assert torch.equal(found, expected)
    (exact,) = torch.autograd.grad(expected.square().sum(), [layer.weight])
    (rounded,) = torch.autograd.grad(found.square().sum(), [layer.weight])
    assert 0 < (rounded - exact).norm() < TOLERANCE * exact.norm()


def test_only_while_active():
    with Bfloat16Gradients():
        pass
    first, second = gradients("plain"), gradients("plain")
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    with Bfloat16Gradients():
        assert not torch.equal(gradients("plain")[1][1], first[1][1])
