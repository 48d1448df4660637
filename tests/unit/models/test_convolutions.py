"""Convolutions under the trainer's memory format and precisions: gradients as in float64, and no crash.

Each case runs in a process of its own, since what is tested against writes past its memory.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from licquant.models.kernels import StridedPointwise, channels_innermost, conv2d

ROOT = Path(__file__).parents[3]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [sys.executable, "-m", "tests.unit.models.gradients_of_layers", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
def test_strided_pointwise_gradients_are_right() -> None:
    done = run("pointwise")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 layers" in done.stdout


@pytest.mark.slow
def test_without_the_mend_they_are_not() -> None:
    """Where this oneDNN has the fault: else there is nothing to see."""
    done = run("pointwise", "--unmended")
    if done.returncode == 0:
        pytest.skip("this machine's oneDNN computes them right")


@pytest.mark.slow
@pytest.mark.long
def test_gradients_of_every_layer_of_every_registered_model() -> None:
    done = run("registered")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("groups", [1, 3])
def test_taking_positions_first_is_the_same_sum(padding: int, groups: int) -> None:
    layer = nn.Conv2d(6, 9, 1, stride=3, padding=padding, groups=groups).double()
    x = torch.randn(2, 6, 10, 11, dtype=torch.float64)
    found = conv2d(x, layer.weight, layer.bias, 3, padding, groups)
    assert torch.allclose(found, layer(x), rtol=1e-12)


def test_only_plain_strided_pointwise_layers_are_changed() -> None:
    class Other(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride=2), Other(4, 4, 1, 2)
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    channels_innermost(model)
    assert [type(layer) for layer in model] == [StridedPointwise, nn.Conv2d, nn.Conv2d, Other]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[0].stride == (2, 2)  # what it says of itself is what it is
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
